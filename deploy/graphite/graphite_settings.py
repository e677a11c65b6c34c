"""Settings of Graphite's web application in docker-compose.yml; they replace the image's local_settings.

The names are those of webapp/graphite/settings.py in graphite-project/graphite-web 1.1.10.
"""

import os
import secrets

STORAGE_DIR = "/opt/graphite/storage"
CONF_DIR = "/opt/graphite/conf"
STATIC_ROOT = "/opt/graphite/static"
SECRET_KEY = secrets.token_hex(32)
ALLOWED_HOSTS = ["*"]
TIME_ZONE = os.environ.get("GRAPHITE_TIME_ZONE", "Etc/UTC")
DEFAULT_XFILES_FACTOR = 0
# Points in Carbon's cache are drawn too.
CARBONLINK_HOSTS = ["127.0.0.1:7002"]
# Short, for dashboards that refresh every ten seconds.
DEFAULT_CACHE_DURATION = 5
FIND_CACHE_DURATION = 5
LOG_FILE_EXCEPTION = "-"
LOG_INFO_PERFORMANCE = LOG_CACHE_PERFORMANCE = LOG_RENDERING_PERFORMANCE = False
LOG_DIR = "/tmp"  # noqa: S108 - a file system that only this container has
