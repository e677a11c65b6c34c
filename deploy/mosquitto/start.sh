#!/bin/sh
# Becomes the broker, after putting together its configuration in /tmp, the only place beside its data that it may write.
set -eu
umask 077

own=/etc/enphase
secrets=/run/secrets
data=/mosquitto/data

# Mosquitto wants to own its password file.
cp "$secrets/passwords" /tmp/passwords
sed "s|enphase/|${MQTT_BASE_TOPIC:-enphase}/|" "$own/acl" >/tmp/acl

if [ -e "$secrets/mqtt_tls" ]; then
  cp "$secrets/server.key" "$secrets/server.crt" /tmp
  # Unencrypted for the health check alone.
  cat >/tmp/listeners <<EOF
listener 1883 127.0.0.1
listener 8883
certfile /tmp/server.crt
keyfile /tmp/server.key
tls_version tlsv1.2
EOF
else
  echo 'listener 1883' >/tmp/listeners
fi
cat "$own/mosquitto.conf" /tmp/listeners >/tmp/mosquitto.conf

# A full disk or a kill leaves half a database, with which Mosquitto ends at every start. Only Mosquitto knows what it can
# read, so it tries on a port of its own. What was queued is in the pollers' journals, what was retained is said again.
if [ -e "$data/mosquitto.db" ]; then
  { grep -v '^log_type' "$own/mosquitto.conf"; echo 'log_type all'; echo 'listener 18830 127.0.0.1'; } >/tmp/trial.conf
  mosquitto -c /tmp/trial.conf 2>/tmp/trial.log &
  trial=$!
  until grep -q ' running$' /tmp/trial.log || ! kill -0 "$trial" 2>/dev/null; do sleep 0.1; done
  kill -KILL "$trial" 2>/dev/null || true
  wait "$trial" || true
  if grep -q "Couldn't open database" /tmp/trial.log; then
    aside=$data/mosquitto.db.unreadable-$(date +%s)
    mv "$data/mosquitto.db" "$aside"
    echo "set aside $aside, which mosquitto cannot read; the journals publish again what it had not passed on"
  fi
fi

exec mosquitto -c /tmp/mosquitto.conf
