"""The comparison of compress.py on all networks: half an hour, and most of what it needs is optional.

`python bench/run.py compress_all` runs it; `make bench` does not. Networks, methods, and where
their data come from are explained in compress.py; rows that were measured before are kept.
"""

from compress import main

if __name__ == "__main__":
    main(["--all"])
