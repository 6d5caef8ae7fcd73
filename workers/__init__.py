"""The Celery side of byok: tasks, schedule and worker set-up."""
