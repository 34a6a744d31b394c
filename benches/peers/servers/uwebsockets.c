/* A relay on uWebSockets: the path names the room, and what comes goes to all others in it as it is. The library is the one inside
 * PyPI's `socketify`, spoken to in C, so that no Python runs.
 *
 *   uwebsockets PORT CERT KEY
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of the library's C interface; of types that only it looks into there is nothing but the name. */
typedef struct app app;
typedef struct request request;
typedef struct response response;
typedef struct context context;
typedef struct websocket websocket;
typedef struct listener listener;

enum { TLS = 1, TEXT = 1, UNCOMPRESSED = 0 };

typedef struct {
  const char *key, *cert, *passphrase, *dh_params, *ca, *ciphers;
  int low_memory;
} tls_options;

typedef struct {
  int port;
  const char *host;
  int options;
} listen_options;

typedef struct {
  int compression;
  unsigned int max_payload;
  unsigned short idle_seconds;
  unsigned int max_backpressure;
  bool close_on_backpressure, reset_idle_on_send, pings;
  unsigned short max_lifetime;
  void (*upgrade)(response *, request *, context *, void *);
  void (*open)(websocket *, void *);
  void (*message)(websocket *, const char *, size_t, int opcode, void *);
  void (*drain)(websocket *, void *);
  void (*ping)(websocket *, const char *, size_t, void *);
  void (*pong)(websocket *, const char *, size_t, void *);
  void (*close)(websocket *, int code, const char *, size_t, void *);
  void (*subscription)(websocket *, const char *, size_t, int, int, void *);
} behavior;

app *uws_create_app(int tls, tls_options options);
bool uws_constructor_failed(int tls, app *);
void uws_ws(int tls, app *, const char *pattern, behavior, void *data);
void uws_app_listen_with_config(int tls, app *, listen_options, void (*done)(listener *, listen_options, void *), void *data);
void uws_app_run(int tls, app *);
size_t uws_req_get_url(request *, const char **url);
size_t uws_req_get_header(request *, const char *name, size_t length, const char **value);
void uws_res_upgrade(int tls, response *, void *data, const char *key, size_t, const char *protocol, size_t,
                     const char *extensions, size_t, context *);
void *uws_ws_get_user_data(int tls, websocket *);
int uws_ws_send(int tls, websocket *, const char *message, size_t length, int opcode);
bool uws_ws_subscribe(int tls, websocket *, const char *topic, size_t length);
bool uws_ws_publish_with_options(int tls, websocket *, const char *topic, size_t topic_length, const char *message,
                                 size_t length, int opcode, bool compress);

static void on_upgrade(response *response, request *request, context *context, void *data) {
  (void)data;
  const char *url, *key, *protocol, *extensions;
  size_t url_length = uws_req_get_url(request, &url);
  size_t key_length = uws_req_get_header(request, "sec-websocket-key", 17, &key);
  size_t protocol_length = uws_req_get_header(request, "sec-websocket-protocol", 22, &protocol);
  size_t extensions_length = uws_req_get_header(request, "sec-websocket-extensions", 24, &extensions);
  char *room = strndup(url, url_length);
  if (room == NULL) abort();
  uws_res_upgrade(TLS, response, room, key, key_length, protocol, protocol_length, extensions, extensions_length, context);
}

static void on_open(websocket *socket, void *data) {
  (void)data;
  const char *room = uws_ws_get_user_data(TLS, socket);
  uws_ws_subscribe(TLS, socket, room, strlen(room));
  uws_ws_send(TLS, socket, "joined", 6, TEXT);
}

static void on_message(websocket *socket, const char *message, size_t length, int opcode, void *data) {
  (void)data;
  const char *room = uws_ws_get_user_data(TLS, socket);
  uws_ws_publish_with_options(TLS, socket, room, strlen(room), message, length, opcode, false);
}

static void on_close(websocket *socket, int code, const char *message, size_t length, void *data) {
  (void)code, (void)message, (void)length, (void)data;
  free(uws_ws_get_user_data(TLS, socket));
}

static void on_listen(listener *listener, listen_options options, void *data) {
  (void)data;
  if (listener == NULL) {
    fprintf(stderr, "cannot listen on port %d\n", options.port);
    exit(1);
  }
}

int main(int count, char **words) {
  if (count != 4) {
    fprintf(stderr, "usage: %s PORT CERT KEY\n", words[0]);
    return 2;
  }
  app *server = uws_create_app(TLS, (tls_options){.cert = words[2], .key = words[3]});
  if (server == NULL || uws_constructor_failed(TLS, server)) {
    fprintf(stderr, "cannot read %s and %s\n", words[2], words[3]);
    return 1;
  }
  uws_ws(TLS, server, "/*",
         (behavior){
             .compression = UNCOMPRESSED,
             .max_payload = 1024 * 1024,
             .idle_seconds = 120,
             .max_backpressure = 16 * 1024 * 1024,
             .pings = true,
             .upgrade = on_upgrade,
             .open = on_open,
             .message = on_message,
             .close = on_close,
         },
         NULL);
  uws_app_listen_with_config(TLS, server, (listen_options){.port = atoi(words[1]), .host = "127.0.0.1"}, on_listen, NULL);
  uws_app_run(TLS, server);
  return 0;
}
