"""`python -m tern`."""

from tern.cli.main import main

main()
