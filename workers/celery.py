"""The app instance that ``celery -A workers`` finds."""

from byok.settings import load_settings
from workers.app import make_app

app = make_app(load_settings())
