"""The bodies of the gateway's responses, as real gateways send them, one module for each kind.

Shapes and deliberate quirks are those of pyenphase's recordings and documentation (docs/endpoint_json.md,
docs/known_issues.md) and of Matthew1471's Enphase-API documentation.
"""
