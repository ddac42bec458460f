/* The call script in C with byte searches and one epoll: what the load generator can at least drive.
 * Usage: yardstick PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum step { CONNECTING, ANSWERING, STARTING, TALKING, HELD };
struct call { int fd; enum step step; size_t used; char uuid[37]; char data[65536]; };

static const char EVENTS[] =
    "event plain CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CUSTOM mod_audio_stream::connect "
    "mod_audio_stream::disconnect mod_audio_stream::error mod_audio_stream::json mod_audio_stream::play";

/* Whether `text` has come; what is before it, and itself, is done with. */
static int came(struct call *call, const char *text) {
    char *found = memmem(call->data, call->used, text, strlen(text));
    if (!found) return 0;
    found += strlen(text);
    call->used -= (size_t)(found - call->data);
    memmove(call->data, found, call->used);
    return 1;
}

static void say(const struct call *call, const char *text) {
    if (send(call->fd, text, strlen(text), MSG_NOSIGNAL) < 0) perror("send");
}

/* The next step, if what it waits for has come: 1; 0 where it has not, -1 where the call is over. */
static int go_on(struct call *call) {
    char text[1024];
    switch (call->step) {
    case CONNECTING:
        if (!memmem(call->data, call->used, "\nControl: full\n\n", 16) || !came(call, "\nUnique-ID: ")) return 0;
        memcpy(call->uuid, call->data, 36);
        snprintf(text, sizeof text, "linger 5\n\nfilter Unique-ID %s\n\n%s\n\n"
                 "sendmsg\ncall-command: execute\nexecute-app-name: answer\nevent-lock: true\n\n", call->uuid, EVENTS);
        break;
    case ANSWERING:
        if (!came(call, "\nApplication: answer\n")) return 0;
        snprintf(text, sizeof text, "api uuid_audio_stream %s start ws://127.0.0.1:9/ mono 8000\n\n", call->uuid);
        break;
    case STARTING:
        if (!came(call, "mod_audio_stream%3A%3Aconnect")) return 0;
        *text = 0;
        break;
    case TALKING:
        if (!came(call, "\"type\": \"end\"")) return 0;
        snprintf(text, sizeof text, "api uuid_setvar %s eslbot_stage held\n\n", call->uuid);
        break;
    default:
        return came(call, "Event-Name: CHANNEL_HANGUP_COMPLETE") ? -1 : 0;
    }
    call->step++;
    if (*text) say(call, text);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 4096)) return perror("listen"), 2;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
    for (;;) {
        struct epoll_event ready[64];
        int n = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < n; i++) {
            struct call *call = ready[i].data.ptr;
            if (!call) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0 || !(call = malloc(sizeof *call))) continue;
                call->fd = fd, call->step = CONNECTING, call->used = 0;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = call});
                say(call, "connect\n\n");
                continue;
            }
            ssize_t got = recv(call->fd, call->data + call->used, sizeof call->data - call->used, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got > 0) call->used += (size_t)got;
            int step = 1;
            while (got > 0 && step > 0) step = go_on(call);
            if (got <= 0 || step < 0) {
                close(call->fd);
                free(call);
            }
        }
    }
}
