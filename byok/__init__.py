"""Bring Your Own Key encryption: data keys in each customer's own AWS KMS."""
