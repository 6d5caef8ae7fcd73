"""The AWS KMS adapter: sessions, clients, error classes and connection checks."""
