// PeerJS's own server. It knows peers, no rooms.
//
//   node peerjs.mjs PORT CERT KEY

import { readFileSync } from 'node:fs'
import { PeerServer } from 'peer'

const [port, cert, key] = process.argv.slice(2)

PeerServer({
  port: Number(port),
  host: '127.0.0.1',
  path: '/',
  ssl: { cert: readFileSync(cert), key: readFileSync(key) },
  concurrent_limit: 100_000,
})
