"""Planted bugs about what runs around a rollout: poolers, standbys, closed terminals, certificates, brokers, alarms."""

from tests.faults.planted.mutant import mutant

CONTACT, CERTIFICATES = "tern/engine/contact.py", "tern/wire/certificates.py"
T_CONTACT, T_CERTIFICATES = "tests/engine/test_contact.py", "tests/wire/test_certificates.py"

MUTANTS = (
    mutant(
        "G16",
        "an engine works through a transaction pooler",
        f"{T_CONTACT} -k transaction_pooler",
        CONTACT,
        "        refuse_transaction_pooler(dsn)\n",
        "",
    ),
    mutant(
        "G16",
        "what is asked of a pooler sets something in a session of the application",
        f"{T_CONTACT} -k transaction_pooler",
        CONTACT,
        '_WHICH_SESSION = b"SELECT pg_catalog.pg_backend_pid()"',
        "_WHICH_SESSION = b\"SET lock_timeout = '3s'; SELECT pg_catalog.pg_backend_pid()\"",
    ),
    mutant(
        "G10",
        "a server that is slow is called a pooler",
        f"{T_CONTACT} -k slow",
        CONTACT,
        "        if before is None or held is None:",
        "        if False:",
    ),
    mutant(
        "G10",
        "a standby answers for its primary",
        f"{T_CONTACT} -k standby",
        CONTACT,
        "            _refuse_standby(connection)\n",
        "",
    ),
    mutant(
        "G11",
        "a worker begins anew when a terminal closes",
        "tests/e2e/test_hangup.py -k same_process",
        "tasks/worker.py",
        'app.steps["worker"].add(Steady)\n',
        "",
    ),
    mutant(
        "G11",
        "a certificate whose key is not there yet is used",
        f"{T_CERTIFICATES} -k does_not_fit",
        CERTIFICATES,
        '            trial.load_cert_chain(self._cert, self._key, password="")',
        "            pass",
    ),
    mutant(
        "G11",
        "a renewed certificate waits for a restart",
        f"{T_CERTIFICATES} -k next_handshake",
        CERTIFICATES,
        "                if found == self._seen:",
        "                if found or True:",
    ),
    mutant(
        "G11",
        "anybody is taken for the broker",
        "tests/tasks/test_config.py",
        "tasks/config.py",
        '{"ssl_cert_reqs": ssl.CERT_REQUIRED, **said}',
        '{"ssl_cert_reqs": ssl.CERT_NONE, **said}',
    ),
    mutant(
        "G15",
        "a counter is born with its first failure",
        "tests/house/test_alarms.py -k before_it_happens",
        "tern/metrics.py",
        "    VERDICTS.add(_state.value, by=0)\n",
        "    pass\n",
    ),
    mutant(
        "G11",
        "doctor takes others' messages for ours",
        "tests/cli/test_doctor.py -k nobody_reads_are_named",
        "tasks/broker.py",
        'if task.startswith("tern.")',
        "if task",
    ),
    mutant(
        "running",
        "each bell that beat can't ring is logged with its tracebacks",
        "tests/e2e/test_broker.py -k fill_the_log",
        "tasks/logs.py",
        '    logging.getLogger("celery.beat").addFilter(UnsentBells())\n',
        "",
    ),
    mutant(
        "words",
        "an engine whose database is away is said not to be there",
        "tests/domain/test_hint.py",
        "tern/domain/hint.py",
        "    if _ITS_DATABASE.search(words):\n        return Cause.DATABASE\n",
        "",
    ),
    mutant(
        "words",
        "whoever has no token is told to compare targets",
        "tests/cli/test_deployments.py -k depends_on_why",
        "tern/cli/deployments.py",
        "        case Cause.REFUSED | Cause.ANOTHER:\n",
        "        case Cause.REFUSED | Cause.ANOTHER | Cause.CREDENTIALS:\n",
    ),
)
