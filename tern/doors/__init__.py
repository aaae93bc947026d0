"""What every way into Tern shares: what can be asked, how that is read, and what is answered, as plain values.

The ways themselves are elsewhere: tern/cli/, tern/client.py, tern/wire/control/, tasks/apply.py. What an operator sees
of the answers is tern/view.py.
"""
