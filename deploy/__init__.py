"""What is needed to run byok, beside its code."""
