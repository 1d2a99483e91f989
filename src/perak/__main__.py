"""``python -m perak`` is the same as ``perak``."""

from perak.cli.main import main

if __name__ == "__main__":
    main()
