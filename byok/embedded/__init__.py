"""Real servers from wheels, for newcomers and tests: PostgreSQL, two Valkeys and the KMS simulator."""
