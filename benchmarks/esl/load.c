/* Plays FreeSWITCH's outbound event socket for many calls at once, and Ameyo's REST interface and a relay beside it.
 *
 * One thread, one epoll. Each call is a connection to the controller under test: it answers the controller's
 * commands in their order, and sends the events that were asked for with the headers of a real FreeSWITCH
 * (channel.txt). A variable that the controller sets or unsets is in, or no longer in, the events that follow.
 * A call is: connect, answer, start of the audio stream, the bot's `end` after --talk ms (from a relay, to a
 * controller whose stream carries an identity: `state` and `connected` at the start, `ended` and `done` then; to the
 * others one text), the controller's marker (`uuid_setvar … eslbot_stage held`), hang-up after --hold ms, and the controller's own close.
 * What differs from FreeSWITCH: it answers at once instead of every 20 ms, and what one read asks for it sends
 * in one write.
 *
 * Usage: load MODE TEMPLATE HOST:PORT [--calls N] [--rate R] [--seconds S] [--warmup S] [--talk MS]
 *             [--hold MS] [--patience S] [--ameyo PORT] [--relay PORT] [--away refused|hanging|503] [--down S] [--fresh R]
 *   throughput  N calls at any time, each end begins the next one: calls a second
 *   paced       R calls a second: latencies
 *   hold        N calls, begun R a second, stay where the marker was set; then S seconds
 *   burst       N calls in one moment
 *   storm       Ameyo is away. N calls, begun R a second, come to wait for it; S seconds (--down) later it is
 *               back, and takes them within --seconds. Meanwhile --fresh callers a second call, are answered,
 *               and hang up. What `hanging` has not answered by then it never answers: those connections close.
 * Writes JSON, an object a line, the last one with the results. Exit code 2: it could not measure.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINES = 384, MAX_COMMAND = 64 * 1024, LINGER = 5, MASKS = MAX_LINES / 64 };
enum mode { THROUGHPUT, PACED, HOLD, BURST, STORM };
enum away { NOT_AWAY, REFUSED, HANGING, UNAVAILABLE };
/* A storm is told in slots of time; fresh callers stay for so long, and have places of their own. */
enum { SLOT_US = 250000, MAX_SLOTS = 4096, FRESH_US = 500000, FRESH_PLACES = 2000 };
enum event { EXECUTE, EXECUTE_COMPLETE, ANSWER, HANGUP, HANGUP_COMPLETE, CONNECTED, JSON, EVENTS };
enum section { HEAD, PROFILE, CHANNEL, VARIABLES, ANSWERED, ENDED, SECTIONS };
enum token { NONE, NAME, UUID, CRT, NOW, STATE, CREATED, ANSWERED_AT, TOKENS };

static const char *const EVENT_NAMES[EVENTS] = {
    "CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE", "CHANNEL_ANSWER", "CHANNEL_HANGUP",
    "CHANNEL_HANGUP_COMPLETE", "mod_audio_stream::connect", "mod_audio_stream::json",
};
static const char *const SECTION_NAMES[SECTIONS] = {"[head]", "[profile]", "[channel]", "[variables]", "[answered]", "[ended]"};
static const char *const TOKEN_NAMES[TOKENS] = {"", "@NAME@", "@UUID@", "@CRT@", "@NOW@", "@STATE@", "@CREATED@", "@ANSWERED@"};
static const char BOT_END[] =
    "{\"type\": \"end\", \"properties\": {\"agent_group\": \"sales\", \"summary\": \"The caller wants to buy.\"}, "
    "\"reason\": \"done\"}";
/* What a relay tells of the same bot: it was dialled while the call was being answered. */
static const char STATE_NEWS[] =
    "{\"news\":\"state\",\"acked\":0,\"url\":\"ws://127.0.0.1:%d/\",\"bot\":\"connected\",\"spoken\":false,"
    "\"speaking\":false,\"hold\":false,\"ended\":null,\"done\":false,"
    "\"lines\":[{\"path\":\"/var/lib/eslbot/lines/%s.0.raw\",\"on\":false}]}";
static const char CONNECTED_NEWS[] = "{\"news\":\"connected\",\"n\":1}";
static const char ENDED_NEWS[] =
    "{\"news\":\"ended\",\"n\":2,\"outcome\":\"bot_ended\",\"reason\":\"done\",\"properties\":{\"agent_group\":"
    "\"sales\",\"summary\":\"The caller wants to buy.\"},\"dropped\":[]}";
static const char DONE_NEWS[] = "{\"news\":\"done\",\"n\":3}";

struct buffer { char *at; size_t used, size; };

/* A header of the template: what stands before and behind its token, and its name's length. */
struct line { enum section section; enum token token; char *before, *after; size_t before_n, after_n, name_n; };

struct call {
    int fd;                                  /* -1: a free place */
    unsigned number;
    int connecting, answered, hung_up, held, writing;
    int by_relay;                            /* its bot is told of by the news of a relay */
    int fresh;                               /* a caller of a storm who only wants to be answered */
    unsigned accepted;                       /* notifications that Ameyo has accepted */
    unsigned wants;                          /* a bit for each enum event */
    uint64_t unset[MASKS];                   /* a bit for each line of the template */
    uint64_t began, first, answer, end, marker, post, gone, created, answered_at;
    char uuid[40], crt[32];
    struct buffer in, out, set;              /* unfinished commands, unsent bytes, variables of the controller */
    struct call *next;                       /* in a queue */
    uint64_t due;
};

/* Calls that wait for the same number of microseconds: in the order in which they are due. */
struct queue { struct call *first, **last; uint64_t delay; };

struct series { double *at; size_t used, size; };

static struct line lines[MAX_LINES];
static int n_lines;
static struct call *calls;
static unsigned n_calls = 64, started, completed, counted, commands, events, active, n_held;
static unsigned lost_refused, lost_reset, lost_closed, lost_silent, lingered, posts, posts_unknown;
static uint64_t bytes_out, bytes_in;
static struct series first_ms, answer_ms, marker_ms, post_ms, fresh_down_ms, fresh_back_ms;
static double rate = 20, seconds = 10, warmup, patience = 10;
static struct queue talking = {0, &talking.first, 20000}, holding = {0, &holding.first, 0};
static struct queue leaving = {0, &leaving.first, FRESH_US};
/* Of a storm: what Ameyo does, how many calls wait for it, and counts by time. */
static enum away away;
static unsigned to_wait, ended, fresh_started, fresh_answered, accepted_once, accepted_again, accepted_never, taken;
static unsigned attempt_slots[MAX_SLOTS], post_slots[MAX_SLOTS], accepted_slots[MAX_SLOTS];
static uint64_t waiting_since, back_since, taken_at;
static double down = 10, fresh_rate;
static int relay_port = 9;
static enum mode mode;
static struct sockaddr_in target;
static int epoll, stopping;
static struct buffer out;                    /* what is being written to the call at hand */
static struct buffer ends;                   /* of paced calls: who and when, for an Ameyo elsewhere; JSON */
static uint64_t run_began, count_from, count_until;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    exit(2);
}

static uint64_t clock_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t now_us(void) { return clock_us(CLOCK_MONOTONIC); }

/* -- buffers ---------------------------------------------------------------------------------------------- */

static void reserve(struct buffer *b, size_t more) {
    if (b->used + more <= b->size) return;
    while (b->size < b->used + more) b->size = b->size ? b->size * 2 : 1024;
    if (!(b->at = realloc(b->at, b->size))) die("out of memory");
}

static void add(struct buffer *b, const char *text, size_t n) {
    reserve(b, n);
    memcpy(b->at + b->used, text, n);
    b->used += n;
}

static void add_text(struct buffer *b, const char *text) { add(b, text, strlen(text)); }

static void add_format(struct buffer *b, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n < 0 || n >= (int)sizeof text) die("a text is too long: %s", format);
    add(b, text, (size_t)n);
}

static void drop(struct buffer *b, size_t n) {
    b->used -= n;
    memmove(b->at, b->at + n, b->used);
}

static void note(struct series *s, uint64_t from, uint64_t to) {
    if (s->used == s->size && !(s->at = realloc(s->at, (s->size = s->size ? s->size * 2 : 4096) * sizeof *s->at)))
        die("out of memory");
    s->at[s->used++] = (double)(to - from) / 1000;
}

/* One more in the slot of now. */
static void count(unsigned *slots) {
    uint64_t slot = (now_us() - run_began) / SLOT_US;
    if (slot < MAX_SLOTS) slots[slot]++;
}

/* -- the template ----------------------------------------------------------------------------------------- */

static void read_template(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die("%s: %s", path, strerror(errno));
    char *text = NULL;
    size_t size = 0;
    int section = -1;
    for (ssize_t n; (n = getline(&text, &size, file)) >= 0;) {
        if (*text == '#' || *text == '\n') continue;
        if (*text == '[') {
            section = -1;
            for (int i = 0; i < SECTIONS; i++)
                if (!strncmp(text, SECTION_NAMES[i], strlen(SECTION_NAMES[i]))) section = i;
            continue;
        }
        char *colon = strchr(text, ':');
        if (section < 0 || !colon || n_lines == MAX_LINES) die("%s: cannot use %s", path, text);
        struct line *line = &lines[n_lines++];
        *line = (struct line){.section = (enum section)section, .name_n = (size_t)(colon - text)};
        line->before = strdup(text);
        line->before_n = (size_t)n;
        for (enum token t = NAME; t < TOKENS; t++) {
            char *found = strstr(line->before, TOKEN_NAMES[t]);
            if (!found) continue;
            line->token = t;
            line->after = found + strlen(TOKEN_NAMES[t]);
            line->after_n = strlen(line->after);
            line->before_n = (size_t)(found - line->before);
            if (strchr(line->after, '@') && strstr(line->after, "@ ")) die("%s: two tokens in %s", path, text);
        }
    }
    free(text);
    fclose(file);
}

static void add_line(const struct call *call, const struct line *line, const char *name, uint64_t now) {
    add(&out, line->before, line->before_n);
    switch (line->token) {
    case NAME: add_text(&out, name); break;
    case UUID: add_text(&out, call->uuid); break;
    case CRT: add_text(&out, call->crt); break;
    case NOW: add_format(&out, "%llu", (unsigned long long)now); break;
    case STATE: add_text(&out, call->hung_up ? "hangup" : call->answered ? "answered" : "ringing"); break;
    case CREATED: add_format(&out, "%llu", (unsigned long long)call->created); break;
    case ANSWERED_AT: add_format(&out, "%llu", (unsigned long long)call->answered_at); break;
    default: return;
    }
    add(&out, line->after, line->after_n);
}

/* The channel as it is now: every event's headers, and with `whole` those of the answer to `connect`. */
static void add_channel(const struct call *call, const char *name, int whole, int last) {
    uint64_t now = clock_us(CLOCK_REALTIME);
    for (int i = 0; i < n_lines; i++) {
        const struct line *line = &lines[i];
        if ((line->section == PROFILE && !whole) || (line->section == ANSWERED && !call->answered) ||
            (line->section == ENDED && !last) || (call->unset[i / 64] >> (i % 64) & 1))
            continue;
        add_line(call, line, name, now);
    }
    if (call->hung_up) add_text(&out, "Hangup-Cause: NORMAL_CLEARING\n");
    add(&out, call->set.at, call->set.used);
}

/* An event, if the controller has asked for it; `more` are headers of its own, lines with their ends. */
static void send_event(const struct call *call, enum event event, const char *more, const char *body) {
    if (!(call->wants >> event & 1)) return;
    /* Its length, nearly always of four digits, stands before it. */
    size_t length = out.used + strlen("Content-Length: ");
    add_text(&out, "Content-Length: 0000\nContent-Type: text/event-plain\n\n");
    size_t content = out.used;
    if (event >= CONNECTED)
        add_format(&out, "Event-Subclass: mod_audio_stream%%3A%%3A%s\n", event == JSON ? "json" : "connect");
    add_channel(call, event >= CONNECTED ? "CUSTOM" : EVENT_NAMES[event], 0, event == HANGUP_COMPLETE);
    add_text(&out, more);
    if (body) add_format(&out, "Content-Length: %zu\n\n%s", strlen(body), body);
    else add_text(&out, "\n");
    char digits[8];
    int n = snprintf(digits, sizeof digits, "%zu", out.used - content);
    if (n != 4) {
        reserve(&out, 4);
        memmove(out.at + length + n, out.at + length + 4, out.used - length - 4);
        out.used += (size_t)n - 4;
    }
    memcpy(out.at + length, digits, (size_t)n);
    events++;
}

/* -- what the controller sets ----------------------------------------------------------------------------- */

/* One argument of an API command as FreeSWITCH would read it, as the value of a header: URL-encoded. */
static void add_value(struct buffer *b, const char *value, size_t n) {
    static const char unsafe[] = "\r\n #%&+:;<=>?@[\\]^`{|}\"";
    for (size_t i = 0; i < n; i++) {
        char c = value[i];
        if (c == '\\' && i + 1 < n) {
            c = value[++i];
            c = c == 's' ? ' ' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
        }
        if (strchr(unsafe, c) || c < ' ' || c > '~') add_format(b, "%%%02X", (unsigned char)c);
        else add(b, &c, 1);
    }
}

static void set_variable(struct call *call, const char *name, size_t name_n, const char *value, size_t value_n) {
    static const char attempts[] = "eslbot_attempts", headers[] = "STREAM_EXTRA_HEADERS";
    if (mode == STORM && value_n && name_n == sizeof attempts - 1 && !memcmp(name, attempts, name_n)) count(attempt_slots);
    for (int i = 0; i < n_lines; i++) {
        const struct line *line = &lines[i];
        if ((line->section == VARIABLES || line->section == ANSWERED) && line->name_n == name_n + 9 &&
            !memcmp(line->before + 9, name, name_n)) {
            call->unset[i / 64] |= 1ULL << (i % 64);
            break;
        }
    }
    for (char *at = call->set.at, *end = at + call->set.used; at < end;) {
        char *next = (char *)memchr(at, '\n', (size_t)(end - at)) + 1;
        if ((size_t)(next - at) > name_n + 10 && at[name_n + 9] == ':' && !memcmp(at + 9, name, name_n)) {
            memmove(at, next, (size_t)(end - next));
            call->set.used -= (size_t)(next - at);
            break;
        }
        at = next;
    }
    if (value_n > 1 && name_n == sizeof headers - 1 && !memcmp(name, headers, name_n))
        call->by_relay = memmem(value, value_n, "X-Eslbot-Identity", 17) != NULL;
    if (value_n) {
        add_text(&call->set, "variable_");
        add(&call->set, name, name_n);
        add_text(&call->set, ": ");
        add_value(&call->set, value, value_n);
        add_text(&call->set, "\n");
    }
}

/* -- the story -------------------------------------------------------------------------------------------- */

static void enqueue(struct queue *queue, struct call *call) {
    call->due = now_us() + queue->delay;
    call->next = NULL;
    *queue->last = call;
    queue->last = &call->next;
}

static struct call *dequeue(struct queue *queue) {
    struct call *call = queue->first;
    if (!(queue->first = call->next)) queue->last = &queue->first;
    return call;
}

static void flush(struct call *call) {
    if (!call->writing && out.used) {
        ssize_t n = send(call->fd, out.at, out.used, MSG_NOSIGNAL);
        if (n < 0) n = 0; /* what a reset means is seen when reading */
        bytes_out += (uint64_t)n;
        if ((size_t)n < out.used) add(&call->out, out.at + n, out.used - (size_t)n);
    } else if (out.used) {
        add(&call->out, out.at, out.used);
    }
    out.used = 0;
    if (!call->writing && call->out.used) {
        call->writing = 1;
        epoll_ctl(epoll, EPOLL_CTL_MOD, call->fd,
                  &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.ptr = call});
    }
}

static void hang_up(struct call *call) {
    call->hung_up = 1;
    call->gone = now_us();
    send_event(call, HANGUP, "", NULL);
    send_event(call, EXECUTE_COMPLETE,
               "Application: socket\nApplication-Response: _none_\n"
               "Application-UUID: 795531ff-4cc3-4b37-990d-e41cd6beb2a2\n", NULL);
    send_event(call, HANGUP_COMPLETE, "", NULL);
    add_format(&out, "Content-Type: text/disconnect-notice\nControlled-Session-UUID: %s\n"
               "Content-Disposition: linger\nChannel-Name: sofia/ameyo/caller@127.0.0.1:5060\nLinger-Time: %d\n"
               "Content-Length: 0\n\n", call->uuid, LINGER);
    flush(call);
}

static void reply(const char *text) {
    add_text(&out, "Content-Type: command/reply\nReply-Text: ");
    add_text(&out, text);
    add_text(&out, "\n\n");
}

static void api_reply(const char *text) {
    add_format(&out, "Content-Type: api/response\nContent-Length: %zu\n\n%s", strlen(text), text);
}

/* The value of a line of a `sendmsg`. */
static const char *field(const char *command, const char *name, char *value, size_t size) {
    const char *at = strcasestr(command, name);
    size_t n = 0;
    if (at)
        for (at += strlen(name); *at && *at != '\n' && n + 1 < size;) value[n++] = *at++;
    value[n] = 0;
    return value;
}

static void execute(struct call *call, const char *command) {
    char application[64], uuid[64], more[300];
    field(command, "\nexecute-app-name: ", application, sizeof application);
    field(command, "\nEvent-UUID: ", uuid, sizeof uuid);
    if (call->hung_up) {
        reply("-ERR invalid session id [c]");
        return;
    }
    reply("+OK");
    if (!*uuid) snprintf(uuid, sizeof uuid, "11111111-2222-3333-4444-%012u", commands);
    snprintf(more, sizeof more, "variable_current_application: %s\nApplication: %s\nApplication-UUID: %s\n",
             application, application, uuid);
    send_event(call, EXECUTE, more, NULL);
    if (!strcmp(application, "answer")) {
        if (!call->answer) {
            call->answer = now_us();
            note(!call->fresh ? &answer_ms : back_since ? &fresh_back_ms : &fresh_down_ms, call->began, call->answer);
            fresh_answered += call->fresh != 0;
        }
        call->answered = 1;
        call->answered_at = clock_us(CLOCK_REALTIME);
        send_event(call, ANSWER, "", NULL);
    }
    if (strstr(application, "playback")) return; /* plays until it is stopped */
    snprintf(more, sizeof more,
             "variable_current_application: %s\nApplication: %s\nApplication-Response: _none_\nApplication-UUID: %s\n",
             application, application, uuid);
    send_event(call, EXECUTE_COMPLETE, more, NULL);
}

static void marked(struct call *call) {
    if (call->held || call->hung_up) return;
    call->held = 1;
    n_held++;
    call->marker = now_us();
    if (call->end) note(&marker_ms, call->end, call->marker);
    if (mode != HOLD) enqueue(&holding, call);
}

static void api(struct call *call, const char *command) {
    if (!strncmp(command, "uuid_setvar ", 12)) {
        const char *name = strchr(command + 12, ' ');
        if (!name) die("cannot read %s", command);
        size_t n = strcspn(++name, " ");
        const char *value = name[n] ? name + n + 1 : name + n;
        set_variable(call, name, n, value, strlen(value));
        api_reply("+OK\n");
        if (!strncmp(name, "eslbot_stage held", 17)) marked(call);
    } else if (!strncmp(command, "uuid_setvar_multi ", 18)) {
        const char *pair = strchr(command + 18, ' ');
        while (pair && *++pair) {
            size_t n = strcspn(pair, ";"), name_n = strcspn(pair, "=");
            if (name_n >= n) die("cannot read %s", command);
            set_variable(call, pair, name_n, pair + name_n + 1, n - name_n - 1);
            if (!strncmp(pair, "eslbot_stage=held", 17)) marked(call);
            pair += n;
            if (!*pair) break;
        }
        api_reply("+OK\n");
    } else if (!strncmp(command, "uuid_getvar ", 12)) {
        char text[64] = "_undef_";
        if (strstr(command, " sip_from_display")) snprintf(text, sizeof text, "00919990152080|%s", call->crt);
        api_reply(text);
    } else if (!strncmp(command, "uuid_audio_stream ", 18)) {
        api_reply("+OK Success\n");
        if (strncmp(command + 18 + strcspn(command + 18, " "), " start ", 7)) return;
        send_event(call, CONNECTED, "", "{\"status\":\"connected\"}");
        if (call->by_relay) {
            char state[512];
            snprintf(state, sizeof state, STATE_NEWS, relay_port, call->uuid);
            send_event(call, JSON, "", state);
            send_event(call, JSON, "", CONNECTED_NEWS);
        }
        enqueue(call->fresh ? &leaving : &talking, call);
    } else if (!strncmp(command, "uuid_displace ", 14)) {
        api_reply("+OK Success\n");
    } else if (!strncmp(command, "bgapi ", 6)) {
        api_reply("+OK Job-UUID: 7f4db0a2-3c1f-4d4e-9a5e-000000000001\n");
    } else if (!strncmp(command, "uuid_break ", 11) || !strncmp(command, "uuid_answer ", 12)) {
        api_reply("+OK\n"); /* who sends uuid_answer sends `answer` too: that is what is measured */
    } else {
        die("an API command that nobody plays: %s", command);
    }
}

/* One command; whether the controller wants the connection closed. */
static int obey(struct call *call, char *command) {
    commands++;
    if (!call->first) note(&first_ms, call->began, call->first = now_us());
    if (!strncmp(command, "api ", 4)) {
        api(call, command + 4);
    } else if (!strncmp(command, "sendmsg", 7)) {
        execute(call, command);
    } else if (!strcmp(command, "connect")) {
        add_channel(call, "CHANNEL_DATA", 1, 0);
        add_text(&out, "Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: async\nControl: full\n\n");
    } else if (!strcmp(command, "getvar sip_from_display")) {
        add_format(&out, "Content-Type: command/reply\nReply-Text: 00919990152080|%s\n\n", call->crt);
    } else if (!strncmp(command, "linger", 6)) {
        reply("+OK will linger 5 seconds");
    } else if (!strncmp(command, "filter ", 7)) {
        add_format(&out, "Content-Type: command/reply\nReply-Text: +OK filter added. [Unique-ID]=[%s]\n\n", call->uuid);
    } else if (!strncmp(command, "event ", 6)) {
        for (int i = 0; i < EVENTS; i++) {
            const char *found = strstr(command, EVENT_NAMES[i]);
            while (found && found[strlen(EVENT_NAMES[i])] > ' ') found = strstr(found + 1, EVENT_NAMES[i]);
            if (found || strcasestr(command, " all")) call->wants |= 1U << i;
        }
        reply("+OK event listener enabled plain");
    } else if (!strcmp(command, "noevents")) {
        call->wants = 0;
        reply("+OK no longer listening for events");
    } else if (!strcmp(command, "exit")) {
        reply("+OK bye");
        return 1;
    } else {
        die("a command that nobody plays: %s", command);
    }
    return 0;
}

/* -- connections ------------------------------------------------------------------------------------------ */

static void begin(struct call *call) {
    struct buffer in = call->in, unsent = call->out, set = call->set;
    in.used = unsent.used = set.used = 0;
    *call = (struct call){.fd = -1, .number = started++, .in = in, .out = unsent, .set = set};
    snprintf(call->uuid, sizeof call->uuid, "6e7cd1a1-0b1a-4ad5-8a2c-%012x", call->number);
    snprintf(call->crt, sizeof call->crt, "d444-%u-%u", (unsigned)(call - calls), call->number);
    call->created = clock_us(CLOCK_REALTIME);
    call->began = now_us();
    call->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (call->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(call->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    call->connecting = 1;
    active++;
    if (connect(call->fd, (struct sockaddr *)&target, sizeof target) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    epoll_ctl(epoll, EPOLL_CTL_ADD, call->fd,
              &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.ptr = call});
}

static void leave_queue(struct queue *queue, struct call *call) {
    for (struct call **at = &queue->first; *at; at = &(*at)->next)
        if (*at == call) {
            if (!(*at = call->next)) queue->last = at;
            return;
        }
}

static void finish(struct call *call, unsigned *lost) {
    close(call->fd);
    call->fd = -1;
    active--;
    if (mode == STORM && !call->fresh) {
        accepted_once += call->accepted == 1;
        accepted_again += call->accepted > 1;
        accepted_never += !call->accepted;
    }
    if (lost) {
        (*lost)++;
        leave_queue(&talking, call);
        leave_queue(&holding, call);
        leave_queue(&leaving, call);
    } else {
        uint64_t now = now_us();
        completed++;
        if (now >= count_from && now < count_until) counted++;
    }
    if (mode == THROUGHPUT && !stopping) begin(call);
}

static void read_call(struct call *call) {
    static char data[MAX_COMMAND];
    ssize_t n = recv(call->fd, data, sizeof data - 1, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        finish(call, call->hung_up ? NULL : n ? &lost_reset : &lost_closed);
        return;
    }
    bytes_in += (uint64_t)n;
    if (call->in.used) { /* the rest of a command */
        add(&call->in, data, (size_t)n);
        if (call->in.used >= sizeof data) die("a command of over %d bytes", MAX_COMMAND);
        n = (ssize_t)call->in.used;
        memcpy(data, call->in.at, call->in.used);
        call->in.used = 0;
    }
    data[n] = 0;
    char *at = data, *end;
    while ((end = strstr(at, "\n\n"))) {
        *end = 0;
        int leaves = obey(call, at);
        at = end + 2;
        if (leaves) {
            flush(call);
            finish(call, call->hung_up ? NULL : &lost_closed);
            return;
        }
    }
    if (*at) add(&call->in, at, strlen(at));
    flush(call);
}

static void write_call(struct call *call) {
    if (call->connecting) {
        int error = 0;
        getsockopt(call->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
        if (error) {
            finish(call, &lost_refused);
            return;
        }
        call->connecting = 0;
    }
    if (call->out.used) {
        ssize_t n = send(call->fd, call->out.at, call->out.used, MSG_NOSIGNAL);
        if (n > 0) {
            bytes_out += (uint64_t)n;
            drop(&call->out, (size_t)n);
        }
    }
    if (!call->out.used) {
        call->writing = 0;
        epoll_ctl(epoll, EPOLL_CTL_MOD, call->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = call});
    }
}

/* Calls that nobody answers, and sockets that are not closed in the time of their lingering. */
static void give_up(void) {
    uint64_t now = now_us();
    for (unsigned i = 0; i < n_calls; i++) {
        struct call *call = &calls[i];
        if (call->fd < 0) continue;
        if (call->hung_up && now - call->gone > LINGER * 1000000ULL) {
            lingered++;
            finish(call, NULL);
        } else if (!call->answer && (double)(now - call->began) > patience * 1e6) {
            finish(call, &lost_silent);
        }
    }
}

/* -- Ameyo and the relay ---------------------------------------------------------------------------------- */

struct client { int fd; int unanswered; int of_relay; struct buffer in; struct client *next; };
static int ameyo = -1, relay = -1;
static struct client *clients;

/* A port that is bound and not listened on refuses, and nobody else can take it. */
static int bound_to(int port) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&own, sizeof own)) die("cannot bind port %d: %s", port, strerror(errno));
    return listener;
}

/* Take connections on what is bound; its own address is the one that epoll tells. */
static void accepts(int *listener) {
    if (listen(*listener, 4096)) die("cannot listen: %s", strerror(errno));
    epoll_ctl(epoll, EPOLL_CTL_ADD, *listener, &(struct epoll_event){.events = EPOLLIN, .data.ptr = listener});
}

static void close_client(struct client *client) {
    struct client **at = &clients;
    while (*at != client) at = &(*at)->next;
    *at = client->next;
    close(client->fd);
    free(client->in.at);
    free(client);
}

static void ameyo_is_back(void) {
    if (away == REFUSED) accepts(&ameyo);
    away = NOT_AWAY;
    for (struct client *client = clients, *next; client; client = next) {
        next = client->next;
        if (client->unanswered) close_client(client);
    }
}

static void accept_client(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct client *client = calloc(1, sizeof *client);
    if (!client) die("out of memory");
    client->fd = fd;
    client->of_relay = listener == relay;
    client->next = clients;
    clients = client;
    /* An odd address: a client's, not a call's. */
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = (char *)client + 1});
}

/* A relay's answer to one request: where the call is, or that it is there at all. */
static int answer_of_relay(struct client *client, size_t length) {
    char text[256], url[64] = "relay";
    if (!strncmp(client->in.at, "GET /prepare ", 13)) snprintf(url, sizeof url, "ws://127.0.0.1:%d/", relay_port);
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s", strlen(url), url);
    drop(&client->in, length);
    return send(client->fd, text, strlen(text), MSG_NOSIGNAL) >= 0;
}

static void read_client(struct client *client) {
    static const char accepted[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    static const char unavailable[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    reserve(&client->in, 16384);
    ssize_t n = recv(client->fd, client->in.at + client->in.used, 16383, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        close_client(client);
        return;
    }
    client->in.used += (size_t)n;
    client->in.at[client->in.used] = 0;
    for (char *end; (end = strstr(client->in.at, "\r\n\r\n"));) {
        const char *length = strcasestr(client->in.at, "\r\nContent-Length:");
        size_t head = (size_t)(end + 4 - client->in.at), body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
        if (client->in.used < head + body) return;
        if (client->of_relay) {
            if (!answer_of_relay(client, head + body)) return;
            client->in.at[client->in.used] = 0;
            continue;
        }
        const char *crt = strstr(client->in.at + head, "\"d444-");
        unsigned place, number;
        if (crt && sscanf(crt, "\"d444-%u-%u\"", &place, &number) == 2 && place < n_calls && calls[place].number == number) {
            posts++;
            if (calls[place].end && !away) note(&post_ms, calls[place].end, now_us());
            if (mode == STORM) {
                count(post_slots);
                if (!away) {
                    count(accepted_slots);
                    if (!calls[place].accepted++ && !calls[place].fresh && ++taken == to_wait) taken_at = now_us();
                }
            }
        } else {
            posts_unknown++;
        }
        if (away == HANGING) client->unanswered = 1;
        else if (away) {
            if (send(client->fd, unavailable, sizeof unavailable - 1, MSG_NOSIGNAL) < 0) return;
        } else if (send(client->fd, accepted, sizeof accepted - 1, MSG_NOSIGNAL) < 0) return;
        drop(&client->in, head + body);
        client->in.at[client->in.used] = 0;
    }
}

/* -- the run ---------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_series(const char *name, struct series *s) {
    if (!s->used) return;
    qsort(s->at, s->used, sizeof *s->at, by_size);
    printf(", \"%s\": {\"n\": %zu, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"max\": %.3f}", name, s->used,
           s->at[s->used / 2], s->at[s->used * 9 / 10], s->at[s->used * 99 / 100], s->at[s->used - 1]);
    if (mode == THROUGHPUT) return; /* too many */
    printf(", \"%s_all\": [", name);
    for (size_t i = 0; i < s->used; i++) printf(i ? ", %.3f" : "%.3f", s->at[i]);
    printf("]");
}

static void print_slots(const char *name, const unsigned *slots) {
    uint64_t last = (now_us() - run_began) / SLOT_US;
    printf(", \"%s\": [", name);
    for (uint64_t i = 0; i <= last && i < MAX_SLOTS; i++) printf(i ? ", %u" : "%u", slots[i]);
    printf("]");
}

static double since_began(uint64_t at) { return at ? (double)(at - run_began) / 1e6 : -1; }

static void print_storm(void) {
    printf(", \"began\": %.6f, \"slot_seconds\": %.3f, \"waiting_after\": %.3f, \"back_after\": %.3f, "
           "\"all_taken_after\": %.3f, \"accepted\": {\"once\": %u, \"again\": %u, \"never\": %u}, "
           "\"fresh\": %u, \"fresh_answered\": %u", (double)run_began / 1e6, SLOT_US / 1e6, since_began(waiting_since),
           since_began(back_since), since_began(taken_at), accepted_once, accepted_again, accepted_never,
           fresh_started, fresh_answered);
    print_slots("attempts_by_slot", attempt_slots);
    print_slots("posts_by_slot", post_slots);
    print_slots("accepted_by_slot", accepted_slots);
    print_series("fresh_down_ms", &fresh_down_ms);
    print_series("fresh_back_ms", &fresh_back_ms);
}

static void print_results(const char *name) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    double run = (double)(now_us() - run_began) / 1e6;
    unsigned all = completed ? completed : 1;
    printf("{\"mode\": \"%s\", \"started\": %u, \"completed\": %u, \"held\": %u, \"lingered\": %u, "
           "\"lost\": {\"refused\": %u, \"reset\": %u, \"closed\": %u, \"silent\": %u}", name, started, completed,
           n_held, lingered, lost_refused, lost_reset, lost_closed, lost_silent);
    if (mode == THROUGHPUT) printf(", \"calls_per_second\": %.2f", counted / ((double)(count_until - count_from) / 1e6));
    printf(", \"posts\": %u, \"posts_unknown\": %u, \"commands_per_call\": %.2f, \"events_per_call\": %.2f, "
           "\"kb_to_controller_per_call\": %.1f, \"kb_from_controller_per_call\": %.1f, \"seconds\": %.3f, "
           "\"own_cpu\": %.4f, \"own_us_per_call\": %.1f", posts, posts_unknown, (double)commands / all,
           (double)events / all, (double)bytes_out / all / 1000, (double)bytes_in / all / 1000, run, cpu / run,
           cpu / all * 1e6);
    print_series("first_command_ms", &first_ms);
    print_series("answer_ms", &answer_ms);
    print_series("end_to_marker_ms", &marker_ms);
    print_series("end_to_post_ms", &post_ms);
    if (mode == PACED) printf(", \"ends\": [%.*s]", (int)ends.used, ends.used ? ends.at : "");
    if (mode == STORM) print_storm();
    puts("}");
}

static unsigned all_lost(void) { return lost_refused + lost_reset + lost_closed + lost_silent; }

static void serve_queues(uint64_t now) {
    while (talking.first && talking.first->due <= now) {
        struct call *call = dequeue(&talking);
        if (call->fd < 0 || call->hung_up) continue;
        call->end = now_us();
        ended++;
        if (mode == PACED)
            add_format(&ends, "%s[\"%s\", %.6f]", ends.used ? ", " : "", call->crt, (double)clock_us(CLOCK_REALTIME) / 1e6);
        send_event(call, JSON, "", call->by_relay ? ENDED_NEWS : BOT_END);
        if (call->by_relay) send_event(call, JSON, "", DONE_NEWS);
        flush(call);
    }
    while (holding.first && holding.first->due <= now) {
        struct call *call = dequeue(&holding);
        if (call->fd >= 0 && !call->hung_up) hang_up(call);
    }
    while (leaving.first && leaving.first->due <= now) {
        struct call *call = dequeue(&leaving);
        if (call->fd >= 0 && !call->hung_up) hang_up(call);
    }
}

/* The next free place; `place` is where to look first. */
static struct call *free_place(unsigned *place) {
    for (unsigned n = 0; calls[*place].fd >= 0; *place = (*place + 1) % n_calls)
        if (n++ == n_calls) die("all %u places are taken: more --calls", n_calls);
    return &calls[*place];
}

/* What a storm does at this moment; when its next fresh caller calls. */
static uint64_t go_on_storming(uint64_t now, unsigned *place) {
    if (!waiting_since && ended + all_lost() >= to_wait) waiting_since = now;
    if (!waiting_since) return UINT64_MAX;
    if (!back_since && now - waiting_since >= (uint64_t)(down * 1e6)) {
        ameyo_is_back();
        back_since = now;
    }
    if (back_since && !stopping && (taken_at || now - back_since >= (uint64_t)(seconds * 1e6))) {
        stopping = 1;
        if (!taken_at) /* the fresh ones leave when they have been answered, as always */
            for (unsigned i = 0; i < n_calls; i++)
                if (calls[i].fd >= 0 && !calls[i].fresh && !calls[i].hung_up) hang_up(&calls[i]);
    }
    while (!stopping && fresh_rate > 0) {
        uint64_t next = waiting_since + (uint64_t)(fresh_started / fresh_rate * 1e6);
        if (next > now) return next;
        struct call *call = free_place(place);
        begin(call);
        call->fresh = 1;
        fresh_started++;
    }
    return UINT64_MAX;
}

static int wait_ms(uint64_t now, uint64_t next_start) {
    uint64_t until = now + 100000;
    if (talking.first && talking.first->due < until) until = talking.first->due;
    if (holding.first && holding.first->due < until) until = holding.first->due;
    if (leaving.first && leaving.first->due < until) until = leaving.first->due;
    if (next_start < until) until = next_start;
    return until <= now ? 0 : (int)((until - now + 999) / 1000);
}

static void run(void) {
    static struct epoll_event ready[256];
    unsigned at_once = mode == BURST || mode == THROUGHPUT ? n_calls : 0;
    unsigned to_start = mode == PACED ? (unsigned)(rate * seconds) : mode == STORM ? to_wait : n_calls, place = 0;
    uint64_t last_look = 0, let_go = 0, ends = mode == THROUGHPUT ? count_until : 0;
    for (unsigned i = 0; i < at_once; i++) begin(&calls[i]);
    for (;;) {
        uint64_t now = now_us(), next_start = UINT64_MAX;
        while (!at_once && started < to_start) { /* paced, hold or storm */
            next_start = run_began + (uint64_t)(started / rate * 1e6);
            if (next_start > now) break;
            begin(free_place(&place));
            next_start = UINT64_MAX;
        }
        serve_queues(now);
        if (mode == STORM) {
            uint64_t fresh = go_on_storming(now, &place);
            if (fresh < next_start) next_start = fresh;
        }
        if (now - last_look > 100000) {
            give_up();
            last_look = now;
        }
        if (ends && now >= ends) stopping = 1;
        /* Whoever is neither held nor lost by then never will be. */
        uint64_t last_held = run_began + (uint64_t)((n_calls / rate + patience) * 1e6);
        if (mode == HOLD && !let_go && started == to_start && (n_held + all_lost() >= to_start || now > last_held)) {
            printf("{\"held\": %u}\n", n_held);
            fflush(stdout);
            let_go = now + (uint64_t)(seconds * 1e6);
        }
        if (let_go && now >= let_go && !stopping) {
            stopping = 1;
            for (unsigned i = 0; i < n_calls; i++)
                if (calls[i].fd >= 0 && !calls[i].hung_up) hang_up(&calls[i]);
        }
        if (!active && (stopping || (mode != THROUGHPUT && mode != HOLD && mode != STORM && started >= to_start))) return;
        int n = epoll_wait(epoll, ready, 256, wait_ms(now, next_start));
        for (int i = 0; i < n; i++) {
            void *who = ready[i].data.ptr;
            if (who == &ameyo || who == &relay) accept_client(*(int *)who);
            else if ((uintptr_t)who & 1) read_client((struct client *)((char *)who - 1));
            else {
                struct call *call = who;
                unsigned number = call->number;
                if (ready[i].events & EPOLLOUT) write_call(call);
                if (call->fd >= 0 && call->number == number && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_call(call);
            }
        }
    }
}

int main(int argc, char **argv) {
    static const char *const modes[] = {"throughput", "paced", "hold", "burst", "storm"};
    static const char *const aways[] = {"", "refused", "hanging", "503"};
    if (argc < 4) die("usage: load MODE TEMPLATE HOST:PORT [options]; see the beginning of load.c");
    int chosen = -1;
    for (int i = 0; i < 5; i++)
        if (!strcmp(argv[1], modes[i])) chosen = i;
    if (chosen < 0) die("no mode %s", argv[1]);
    mode = (enum mode)chosen;
    read_template(argv[2]);
    char *colon = strrchr(argv[3], ':');
    if (!colon) die("HOST:PORT is %s", argv[3]);
    *colon = 0;
    target = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, argv[3], &target.sin_addr) != 1) die("no IPv4 address: %s", argv[3]);
    if ((epoll = epoll_create1(0)) < 0) die("epoll: %s", strerror(errno));
    for (int i = 4; i < argc; i += 2) {
        if (i + 1 == argc) die("%s without a value", argv[i]);
        double value = atof(argv[i + 1]);
        if (!strcmp(argv[i], "--calls")) n_calls = (unsigned)value;
        else if (!strcmp(argv[i], "--rate")) rate = value;
        else if (!strcmp(argv[i], "--seconds")) seconds = value;
        else if (!strcmp(argv[i], "--warmup")) warmup = value;
        else if (!strcmp(argv[i], "--talk")) talking.delay = (uint64_t)(value * 1000);
        else if (!strcmp(argv[i], "--hold")) holding.delay = (uint64_t)(value * 1000);
        else if (!strcmp(argv[i], "--patience")) patience = value;
        else if (!strcmp(argv[i], "--ameyo")) ameyo = bound_to((int)value);
        else if (!strcmp(argv[i], "--relay")) relay = bound_to(relay_port = (int)value);
        else if (!strcmp(argv[i], "--down")) down = value;
        else if (!strcmp(argv[i], "--fresh")) fresh_rate = value;
        else if (!strcmp(argv[i], "--away")) {
            for (int n = REFUSED; n <= UNAVAILABLE; n++)
                if (!strcmp(argv[i + 1], aways[n])) away = (enum away)n;
            if (!away) die("--away %s is none of refused, hanging, 503", argv[i + 1]);
        }
        else die("no option %s", argv[i]);
    }
    if (!n_calls || n_calls > 100000 || rate <= 0 || seconds < 0) die("--calls 1 to 100000, --rate above 0");
    if ((mode == STORM) != (away != NOT_AWAY) || (mode == STORM && ameyo < 0))
        die("a storm needs --ameyo and --away, and nothing else does");
    if (ameyo >= 0 && away != REFUSED) accepts(&ameyo);
    if (relay >= 0) accepts(&relay);
    to_wait = n_calls;
    if (mode == STORM) n_calls += FRESH_PLACES;
    if (!(calls = calloc(n_calls, sizeof *calls))) die("out of memory");
    for (unsigned i = 0; i < n_calls; i++) calls[i].fd = -1;
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 17, 1 << 17});
    run_began = now_us();
    count_from = run_began + (uint64_t)(warmup * 1e6);
    count_until = mode == THROUGHPUT ? count_from + (uint64_t)(seconds * 1e6) : UINT64_MAX;
    run();
    print_results(modes[mode]);
    return 0;
}
