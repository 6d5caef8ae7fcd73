"""The workers without task events, to see what these cost."""

from byok.settings import load_settings
from workers.app import make_app

app = make_app(load_settings())
app.conf.worker_send_task_events = False
