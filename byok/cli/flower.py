"""``byok flower``: Flower, closed."""


def flower() -> None:
    """Show workers and tasks in a browser, behind a password: Flower without its API and its controls.

    Needs BYOK_BROKER_URL and FLOWER_BASIC_AUTH=USER:PASSWORD, and no other secret.
    """
    # Imported on use: Flower brings a web server.
    from byok.flower.serving import serve
    from byok.settings import flower_environment, load_flower_settings

    serve(load_flower_settings(), flower_environment())
