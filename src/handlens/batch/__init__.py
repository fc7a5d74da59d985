"""One question about every picture and page of a folder: found, asked in processes, kept, written."""
