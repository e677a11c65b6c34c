#!/bin/sh
# Runs carbon-cache and Graphite's web application without root. When one of them exits, the container does too, and Docker
# restarts it. The image's own start script needs root and a writable file system.
set -eu

export PATH=/opt/graphite/bin:$PATH
export PYTHONPATH=/opt/graphite/webapp:/etc/enphase PYTHONDONTWRITEBYTECODE=1
export DJANGO_SETTINGS_MODULE=graphite.settings GRAPHITE_SETTINGS_MODULE=graphite_settings
storage=/opt/graphite/storage

# A Carbon that is killed while it creates a file leaves an incomplete header (28 bytes), and rejects every later point of
# that metric: graphite-project/carbon#99.
mkdir -p "$storage/whisper"
find "$storage/whisper" -name '*.wsp' -size -28c | while read -r file; do
  mv "$file" "$file.corrupt"
  echo "$file is corrupt (incomplete Whisper header); moved to $file.corrupt"
done

carbon() {
  exec python3 /opt/graphite/bin/carbon-cache.py --config=/opt/graphite/conf/carbon.conf --pidfile=/tmp/carbon.pid \
    --nodaemon start
}
web() {
  [ -s "$storage/graphite.db" ] || python3 -m django migrate --run-syncdb --verbosity 0
  exec gunicorn graphite.wsgi --preload --bind unix:/tmp/graphite.socket --workers 2 --worker-tmp-dir /tmp \
    --log-level warning
}
proxy() { exec nginx -e stderr -c /etc/enphase/nginx.conf; }

carbon & carbon=$!
web & web=$!
proxy & proxy=$!

end() {
  trap - TERM INT
  kill -TERM "$carbon" "$web" "$proxy" 2>/dev/null || true
  wait
  exit "$1"
}
trap 'end 0' TERM INT
while kill -0 "$carbon" "$web" "$proxy" 2>/dev/null; do
  sleep 1 &
  wait $! || true
done
echo 'carbon, the web application or nginx exited; stopping the others, so that Docker restarts all'
end 1
