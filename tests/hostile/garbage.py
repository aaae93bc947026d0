"""Bad input by the thousand, the same for the same seed: bytes, messages of every shape, values that hurt.

`FUZZ_SEED` and `FUZZ_CALLS` (of one door) in the environment ask for other garbage, and for more of it.
"""

import os
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

SEED = int(os.environ.get("FUZZ_SEED", "1"))

TEXTS = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\n",
    "\r\nauthorization: Bearer x",
    "'; DROP TABLE t; --",
    '"',
    "\\",
    "%s%s%s%n",
    "{0.__class__}",
    "$(reboot)",
    "../../etc/passwd",
    "\U0001d52c\U0001d52f\U0001d521",
    "\u202egnirts",
    "\ufeff",
    "e\u0301" * 40,
    "\U0010ffff",
    "x" * 64,
    "x" * 513,
    "x" * 70_000,
    "apl-1",
    "apl-1/A",
    "apl-1/",
    "/A",
    "0",
    "-1",
    "NaN",
    "true",
    "null",
    "env:HOME",
    "file:/etc/passwd",
)
INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    99,
    100,
    101,
    2**15,
    2**31 - 1,
    -(2**31),
    2**31,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
FLOATS = (0.0, -0.0, 1.5, -1e308, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    # An enum of proto3 takes every number of 32 bits.
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
DEEPEST = 4

Override = Callable[[FieldDescriptor, random.Random], Any]
"""A value for a field, or None to leave it to chance."""


def calls_asked_for(usual: int) -> int:
    """How many calls a door is to bear."""
    return int(os.environ.get("FUZZ_CALLS", str(usual)))


class Garbage:
    """One stream of bad input. Not thread-safe: each thread has its own."""

    def __init__(self, seed: object, override: Override | None = None) -> None:
        self.random = random.Random(f"{SEED}/{seed}")  # noqa: S311 - to be repeated, not to be secret
        self._override = override or (lambda _field, _chance: None)

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.random.choice(choices)

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability

    def text(self) -> str:
        if self.happens(0.7):
            return str(self.one_of(TEXTS))
        length = self.random.randrange(40)
        letters = (self.random.choice((self.random.randrange(1, 128), 0x3B1)) for _ in range(length))
        return "".join(map(chr, letters))

    def noise(self, most: int = 200) -> bytes:
        return self.random.randbytes(self.random.randrange(most))

    def message(self, descriptor: Descriptor, depth: int = 0) -> Any:
        """A message of that type in which anything may stand that its encoding can hold."""
        made = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self.happens(0.75 if depth == 0 else 0.5):
                self._fill(made, field, depth)
        return made

    def encoded(self, descriptor: Descriptor) -> bytes:
        """What arrives in place of such a message: sound, bent, cut off, doubled, or no message at all."""
        sound = bytes(self.message(descriptor).SerializeToString())
        match self.random.randrange(10):
            case 0:
                return self.noise()
            case 1:
                return b""
            case 2:
                return sound[: self.random.randrange(len(sound) + 1)]
            case 3:
                return sound + sound
            case 4 if sound:
                bent = bytearray(sound)
                for _ in range(self.random.randrange(1, 5)):
                    bent[self.random.randrange(len(bent))] = self.random.randrange(256)
                return bytes(bent)
            case 5:
                return sound + self._strange_field()
            case _:
                return sound

    def _strange_field(self) -> bytes:
        """Encodings that a reader may stumble over: unknown fields, groups that never end, lengths that lie."""
        return bytes(
            self.one_of(
                (
                    b"\xfa\x7f\x03abc",
                    b"\x0b" * 200,
                    b"\x0a\xff\xff\xff\xff\x0f",
                    b"\x08" + b"\xff" * 11,
                    b"\x0a\x02\xc3\x28",
                    b"\x00\x00",
                    b"\x0d" + struct.pack("<f", float("nan")),
                )
            )
        )

    def _fill(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = getattr(made, field.name)
            value_field = field.message_type.fields_by_name["value"]
            for _ in range(self.random.randrange(4)):
                key = self.text()
                if value_field.message_type is None:
                    entries[key] = self._value(value_field, depth)
                elif depth < DEEPEST:
                    entries[key].CopyFrom(self.message(value_field.message_type, depth + 1))
            return
        if field.is_repeated:
            wanted = self.random.choice((0, 1, 1, 2, 3, 20 if depth == 0 else 4))
            values = [value for _ in range(wanted) if (value := self._value(field, depth)) is not None]
            getattr(made, field.name).extend(values)
            return
        value = self._value(field, depth)
        if value is None:
            return
        if field.message_type is None:
            setattr(made, field.name, value)
        else:
            getattr(made, field.name).CopyFrom(value)

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        given = self._override(field, self.random)
        if given is not None:
            return given
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_MESSAGE:
            return self.message(field.message_type, depth + 1) if depth < DEEPEST else None
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self.noise() if field.type == FieldDescriptor.TYPE_BYTES else self.text()
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self.happens(0.5)
        if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
            return self.one_of(FLOATS)
        low, high = _BITS[kind]
        if kind == FieldDescriptor.CPPTYPE_ENUM and self.happens(0.7):
            return self.one_of(field.enum_type.values).number
        fitting = [number for number in INTEGERS if low <= number <= high]
        return self.one_of(fitting) if self.happens(0.7) else self.random.randint(low, high)


def path_of(method: MethodDescriptor) -> str:
    """Where a method is called."""
    return f"/{method.containing_service.full_name}/{method.name}"
