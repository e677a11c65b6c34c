// Node-RED of docker-compose.yml: its editor requires a password. Its account at the broker is "viewer", which may read
// readings, status and info, but no token.
const fs = require("fs");
const crypto = require("crypto");

const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, "utf8");
const same = (one, other) =>
  crypto.timingSafeEqual(...[one, other].map((text) => crypto.createHash("sha256").update(text).digest()));
const tls = fs.existsSync("/run/secrets/mqtt_tls");
const admin = { username: "admin", permissions: "*" };

// The example is written only if there are no flows yet.
const flows = "/data/flows.json";
if (!fs.existsSync(flows)) {
  const example = fs.readFileSync("/etc/enphase/flows.json", "utf8");
  const nodes = JSON.parse(example.replaceAll("enphase/", `${process.env.MQTT_BASE_TOPIC || "enphase"}/`));
  const broker = nodes.find((node) => node.type === "mqtt-broker");
  if (tls) {
    nodes.push({ id: "enphase-tls", type: "tls-config", name: "the stack's authority", ca: "/run/secrets/ca.crt", verifyservercert: true });
    Object.assign(broker, { port: "8883", usetls: true, tls: "enphase-tls" });
  }
  fs.writeFileSync(flows, JSON.stringify(nodes, null, 2));
  fs.writeFileSync("/data/flows_cred.json", JSON.stringify({ [broker.id]: { user: "viewer", password: "${MQTT_PASSWORD}" } }));
}
process.env.MQTT_PASSWORD = secret("mqtt_password");

module.exports = {
  uiPort: 1880,
  flowFile: "flows.json",
  flowFilePretty: true,
  // The file of credentials contains the name of a variable and no password.
  credentialSecret: false,
  diagnostics: { enabled: false },
  telemetry: { enabled: false, updateNotification: false },
  adminAuth: {
    type: "credentials",
    users: async (username) => (username === admin.username ? admin : null),
    authenticate: async (username, password) =>
      username === admin.username && same(password, secret("editor_password")) ? admin : null,
  },
  logging: { console: { level: "info", metrics: false, audit: false } },
};
