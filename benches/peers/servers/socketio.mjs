// A signaling server on Socket.IO, as its documentation shows one: rooms, and messages to a room or to one socket.
//
//   node socketio.mjs PORT CERT KEY

import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { Server } from 'socket.io'

const [port, cert, key] = process.argv.slice(2)
const server = createServer({ cert: readFileSync(cert), key: readFileSync(key) })
const io = new Server(server, { serveClient: false })

io.on('connection', (socket) => {
  const { room } = socket.handshake.auth
  socket.join(room)
  socket.on('message', (to, data) => {
    socket.to(to ?? room).emit('message', socket.id, data)
  })
  socket.emit('joined')
})

server.listen(Number(port), '127.0.0.1')
