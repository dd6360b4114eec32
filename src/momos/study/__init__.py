"""The experiments, built on the public names of the library; of `_util` they use escaping only."""
