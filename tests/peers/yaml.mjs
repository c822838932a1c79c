// Reads YAML from standard input and writes it as JSON: Python's standard library has no YAML.
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

process.stdout.write(JSON.stringify(parse(readFileSync(0, 'utf8'), { merge: true })));
