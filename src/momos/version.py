"""The version, for those below the package that write it into files."""

__version__ = "0.1.0"
