"""``python -m vlbias.cli`` is ``vlbias``."""

from vlbias.cli import main

if __name__ == "__main__":
    main()
