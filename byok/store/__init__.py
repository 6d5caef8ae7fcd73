"""The PostgreSQL adapter: schema, migrations and the tables behind the Store port."""
