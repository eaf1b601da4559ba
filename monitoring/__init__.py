"""What Prometheus and Grafana are given: rules, alerts and dashboards, written by ``python -m monitoring``.

``objectives`` says what is promised, ``alerts`` what a person is told of, ``boards`` what they look at. The
files beside them are generated, so that Prometheus, the Prometheus operator and Grafana can take them as they
are.
"""
