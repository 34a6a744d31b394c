// A relay on `ws`: the path names the room, and what comes goes to all others in it as it is.
//
//   node ws.mjs PORT CERT KEY

import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { WebSocketServer } from 'ws'

const [port, cert, key] = process.argv.slice(2)
const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) })
const sockets = new WebSocketServer({ server, maxPayload: 1024 * 1024 })

/** @type {Map<string, Set<import('ws').WebSocket>>} */
const rooms = new Map()

sockets.on('connection', (socket, request) => {
  const name = request.url
  const room = rooms.get(name) ?? new Set()
  rooms.set(name, room)
  room.add(socket)
  socket.on('message', (data) => {
    for (const other of room) {
      if (other !== socket) other.send(data, { binary: false })
    }
  })
  socket.on('close', () => {
    room.delete(socket)
    if (room.size === 0) rooms.delete(name)
  })
  // A client that is lost has nothing to be told; without a listener the error would end the program.
  socket.on('error', () => {})
  socket.send('joined')
})

server.listen(Number(port), '127.0.0.1')
