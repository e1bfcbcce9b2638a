"""One module for each command or family of commands; what they import is heavy, so cli.py imports them when they are called."""
