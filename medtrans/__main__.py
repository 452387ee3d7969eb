"""`python -m medtrans` is the command line."""

from medtrans.cli.app import main

main()
