"""The command line: `app` parses with typer; each command has a module that does its work."""

from medtrans.cli.app import main

__all__ = ["main"]
