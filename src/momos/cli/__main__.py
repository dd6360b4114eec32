"""`python -m momos.cli`: the command, where its script is not on the path."""

from momos.cli import main

if __name__ == "__main__":
    main()
