"""``python -m chartgate``: the same as the ``chartgate`` command."""

from chartgate.cli.main import main

if __name__ == "__main__":
    main()
