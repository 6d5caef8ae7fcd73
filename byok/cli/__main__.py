"""``python -m byok.cli``."""

from byok.cli.main import main

main()
