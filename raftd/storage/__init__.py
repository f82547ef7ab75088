"""The write-ahead log on disk: checksummed records, segments, the storage thread, and an in-memory twin."""
