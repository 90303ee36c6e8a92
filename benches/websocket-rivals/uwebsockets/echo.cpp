// An echo on uWebSockets for `benches/websocket_echo.rs`: prints its port, answers each message with itself.
#include "App.h"
#include <cstdio>

struct Nothing {};

int main() {
    uWS::App::WebSocketBehavior<Nothing> behavior;
    behavior.compression = uWS::DISABLED;
    behavior.maxPayloadLength = 16 * 1024 * 1024;
    behavior.maxBackpressure = 0;
    behavior.idleTimeout = 0;
    behavior.message = [](auto *ws, std::string_view message, uWS::OpCode kind) { ws->send(message, kind); };
    uWS::App().ws<Nothing>("/*", std::move(behavior)).listen("127.0.0.1", 0, [](auto *socket) {
        std::printf("127.0.0.1:%d\n", us_socket_local_port(0, (us_socket_t *) socket));
        std::fflush(stdout);
    }).run();
}
