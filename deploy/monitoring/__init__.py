"""The sources of Prometheus's rules and Grafana's dashboard; ``python -m deploy.generate`` writes both."""
