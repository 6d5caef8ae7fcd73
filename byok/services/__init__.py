"""What byok does, on top of the ports: leases, fields, rotations, validation, tenants, schedules."""
