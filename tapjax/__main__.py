"""`python -m tapjax` is the `tapjax` command."""

from tapjax.cli.main import main

if __name__ == '__main__':
  main()
