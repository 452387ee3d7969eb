"""`python -m medtrans` is the command line."""

from medtrans.cli import main

main()
