"""Small tools that know nothing of mosaics: files, progress, threads, text."""
