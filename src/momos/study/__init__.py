"""The experiments: a customer of the library, which uses its public names only."""
