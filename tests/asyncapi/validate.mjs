// Tells what @asyncapi/parser finds in an AsyncAPI document: node validate.mjs DOCUMENT
//
// Errors and warnings end it with 1. Information and hints are told and pass; the one that docs/asyncapi.yaml earns is
// asyncapi-latest-version, because the contract is written in AsyncAPI 3.0, which more tools read than 3.1.

import { readFile } from "node:fs/promises";
import { argv, exit } from "node:process";

import { DiagnosticSeverity, Parser } from "@asyncapi/parser";

const document = argv[2];
const diagnostics = await new Parser().validate(await readFile(document, "utf8"), { source: document });
for (const { severity, code, message, path, range } of diagnostics) {
  const line = range.start.line + 1;
  console.log(`${document}:${line}: ${DiagnosticSeverity[severity]} ${code}: ${message} (${path.join(".")})`);
}
exit(diagnostics.some(({ severity }) => severity <= DiagnosticSeverity.Warning) ? 1 : 0);
