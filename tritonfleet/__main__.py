"""``python -m tritonfleet`` is the command ``tritonfleet``."""

from tritonfleet.cli.main import main

if __name__ == "__main__":
    main()
