#!/bin/sh
# Write the broker's configuration to /tmp, the only writable folder besides its data, and start the broker.
set -eu
umask 077

config=/etc/enphase
secrets=/run/secrets
data=/mosquitto/data

# Mosquitto requires to be the owner of its password file.
cp "$secrets/passwords" /tmp/passwords
sed "s|enphase/|${MQTT_BASE_TOPIC:-enphase}/|" "$config/acl" >/tmp/acl

if [ -e "$secrets/mqtt_tls" ]; then
  cp "$secrets/server.key" "$secrets/server.crt" /tmp
  # Without encryption for the health check only.
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
cat "$config/mosquitto.conf" /tmp/listeners >/tmp/mosquitto.conf

# A full disk or a kill can leave half a database, with which Mosquitto exits at every start. Only Mosquitto can read
# it, so a probe is started on a port of its own. The queued messages are in the pollers' journals, and the services publish
# the retained ones again.
if [ -e "$data/mosquitto.db" ]; then
  { grep -v '^log_type' "$config/mosquitto.conf"; echo 'log_type all'; echo 'listener 18830 127.0.0.1'; } >/tmp/probe.conf
  mosquitto -c /tmp/probe.conf 2>/tmp/probe.log &
  probe=$!
  until grep -q ' running$' /tmp/probe.log || ! kill -0 "$probe" 2>/dev/null; do sleep 0.1; done
  kill -KILL "$probe" 2>/dev/null || true
  wait "$probe" || true
  if grep -q "Couldn't open database" /tmp/probe.log; then
    quarantined=$data/mosquitto.db.$(date +%s).corrupt
    mv "$data/mosquitto.db" "$quarantined"
    echo "$data/mosquitto.db is corrupt; moved to $quarantined; the journals resend what it had not delivered"
  fi
fi

exec mosquitto -c /tmp/mosquitto.conf
