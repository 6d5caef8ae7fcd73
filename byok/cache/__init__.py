"""The Redis adapter: sealed leases with a TTL."""
