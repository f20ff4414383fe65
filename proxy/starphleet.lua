-- What nginx decides for each request: the container, its count, the path it sees.
-- Loaded once by the master; the tables live in shared memory and outlive reloads.

local balancer = require "ngx.balancer"
local ffi = require "ffi"
local front = require "front"
local guard = require "guard"
local own = require "own"
local pages = require "pages"
local quick = require "quick"
local resp = require "ngx.resp"
local ways = require "ways"

ffi.cdef "int kill(int pid, int sig);"

local backends = ngx.shared.starphleet_backends -- service -> "host port container[ flag]..."
local open = ngx.shared.starphleet_open         -- "container pid" -> requests open there, or 0
local workers = ngx.shared.starphleet_workers   -- pid -> "generation state"
local used = ngx.shared.starphleet_used         -- container -> when it was last asked, epoch seconds

local M = { generation = 0 }

local LOADED = "\1loaded" -- no service can have this name
local CLOSING = "\1closing" -- generation whose connections are to end soon
local MOST_ROWS = 4096
local HOPS = 3 -- services that one request may be led through
local ONCE_ONLY = { POST = true, LOCK = true, PATCH = true } -- what nginx never sends twice

local SWEEP = 60 -- seconds
local LOOK, LONGEST = 0.05, 30 -- seconds between two looks at what is waited for; in all
local ALONE = 1 -- seconds until a worker sees for itself whether a service listens
local FULL = "resource temporarily unavailable" -- there is no place left in a socket's queue

local FLAGS = { asleep = true, guarded = true, starting = true, stopped = true } -- of a backend

local pid                     -- of this worker
local rows, held = {}, 0      -- service -> what its backend last said, and how many of them
local known = {}              -- service -> the row that was true lately, of those without a flag
local led = {}                -- request -> the row by which it was led, from then on to its end
local baked = {}              -- request -> cookies for its client, if any
local counted = {}            -- what this worker has put into `open`
local second, touched = 0, {} -- the containers that were asked in this second
local looked, closing = 0, false -- when it was last asked whether connections end, and the answer

-- The master's memory starts empty: fill it from what the ship wrote last. On a reload it is
-- full, and the file may be behind it.
function M.init(generation, ship, reached, scheme)
    M.generation, pages.ship, pages.reached = generation, ship, reached
    quick.scheme = scheme
    guard.init()
    if backends:get(LOADED) then return end
    local file = io.open(ngx.config.prefix() .. "backends")
    if file then
        for line in file:lines() do
            local service, backend = line:match("^(%S+) (%S+ %d+ %S+.*)$")
            if service then backends:safe_set(service, backend) end
        end
        file:close()
    end
    local offline = io.open(ngx.config.prefix() .. "offline")
    if offline then offline:close() end
    pages.set_offline(offline ~= nil)
    backends:safe_set(LOADED, true)
end

-- Counts that are zero go from time to time, and when the worker does. Nobody else changes them.
local function sweep()
    rows, held, known = {}, 0, {}
    for key in pairs(counted) do
        if open:get(key) == 0 then
            open:delete(key)
            counted[key] = nil
        end
    end
end

-- A worker tells when it stops accepting: pending timers fire early, right after the listening
-- sockets were closed.
function M.init_worker()
    pid = tostring(ngx.worker.pid())
    workers:set(pid, M.generation .. " serving")
    local function leaving(premature)
        if premature then
            workers:set(pid, M.generation .. " leaving")
        else
            ngx.timer.at(86400, leaving)
        end
    end
    ngx.timer.at(86400, leaving)
    ngx.timer.every(SWEEP, sweep)
end

function M.exit_worker()
    sweep()
    workers:delete(pid)
end

local function worker_pids()
    local alive = {}
    for _, one in ipairs(workers:get_keys(0)) do
        -- one that crashed could not say goodbye; what it had open went with it
        if ffi.C.kill(tonumber(one), 0) == 0 then
            alive[#alive + 1] = one
        else
            workers:delete(one)
        end
    end
    return alive
end

local function open_requests(container)
    local sum = 0
    for _, one in ipairs(worker_pids()) do
        sum = sum + (open:get(container .. " " .. one) or 0)
    end
    return sum
end

local function count(row, step)
    open:incr(row.key, step, 0)
end

-- A request that cannot be sent twice travels on a connection of its own: a kept-alive one that
-- the app closes at that very moment would be a 502 that nobody can mend.
local function connection(var, more)
    if not more and not ONCE_ONLY[ngx.req.get_method()] then return end
    local upgrade = var.http_upgrade
    if upgrade and upgrade:lower() == "websocket" then
        var.sp_upgrade, var.sp_connection = "websocket", "upgrade"
        return
    end
    local length = tonumber(var.http_content_length) or 0
    if ONCE_ONLY[ngx.req.get_method()] or length > 0 or var.http_transfer_encoding then
        var.sp_upstream, var.sp_connection = "once", "close"
    end
end

-- Of many who come at once some have to wait until the ship has heard others.
local function connected(ship)
    local ends = ngx.now() + LONGEST
    repeat
        local ok, why = ship:connect("unix:" .. ngx.config.prefix() .. "hooks/wake")
        if ok or why ~= FULL then return ok end
        ngx.sleep(LOOK)
    until ngx.now() > ends
end

-- The ship wakes what it put to sleep, and answers when that can be asked.
local function wake(service)
    local ship = ngx.socket.tcp()
    ship:settimeout(10000)
    local ok = connected(ship)
    if ok then ok = ship:send(service .. "\n") end
    if ok then ok = ship:receive() end
    ship:close()
    return ok == "awake" -- else the ship's log says why
end

-- What a row of the table says. Reading it takes a pattern, and patterns are not compiled.
local function read(service, backend)
    local row = rows[service]
    if row and row.backend == backend then return row end
    local host, port, container, more = backend:match("^(%S+) (%d+) (%S+)(.*)$")
    row = {
        host = host, port = tonumber(port), container = container,
        key = container .. " " .. pid,
        service = service, backend = backend,
    }
    for flag in pairs(FLAGS) do row[flag] = more:find(" " .. flag, 1, true) ~= nil end
    row.plain = more == ""
    if held >= MOST_ROWS then rows, held = {}, 0 end
    rows[service], held = row, held + 1
    return row
end

local function listens(row)
    local app = ngx.socket.tcp()
    app:settimeout(1000)
    local ok = app:connect(row.host, row.port)
    app:close()
    return ok
end

-- A request for a service that is starting stays here until the ship says that it listens, or, for
-- the ship may be gone, until that is seen.
local function stay(row)
    local now = ngx.now()
    local ends, alone = now + LONGEST, now + ALONE
    while now < ends do
        ngx.sleep(LOOK)
        if backends:get(row.service) ~= row.backend then return end
        now = ngx.now()
        if now >= alone then
            if listens(row) then return end
            alone = ngx.now() + ALONE
        end
    end
end

-- Once a second is enough for who asks how long it was idle.
local function use(container)
    local now = math.floor(quick.now())
    if now ~= second then second, touched = now, {} end
    if touched[container] then return end
    touched[container] = true
    used:set(container, now)
end

-- Counted first and looked up then, so that a ship that has switched and then reads zero can be
-- sure that nobody still is on the way to the old one.
local function go_to(service, row)
    local container = row.container
    count(row, 1)
    counted[row.key] = true
    if backends:get(service) == row.backend and not row.asleep then
        use(container)
        led[quick.request()] = row
        ngx.var.sp_container = container
        return true
    end
    count(row, -1)
    known[service] = nil
    if row.asleep and not wake(service) then ngx.exit(503) end
end

-- What is said of a service now; or lately, where `go_to` would see that it has changed.
local function look_up(service)
    local row = known[service]
    if row then return row end
    local backend = backends:get(service)
    if not backend then return nil end
    row = read(service, backend)
    if row.plain then known[service] = row end
    return row
end

-- Another service in place of this one, for whom the guard says so.
local function instead(yes, hops)
    return hops < HOPS and yes.serve and yes.serve ~= "" and backends:get(yes.serve) and yes.serve
end

-- Leads to the container of a service, or of the one that its guard says instead. Returns which
-- service that is, the guard's yes if there is a guard, and cookies for the client, if any.
-- Whenever something else is said of the service, or a while has passed, its guard is asked anew:
-- `waited` is the backend that was waited for. `told` are cookies of those that led here.
local function lead(service, logins, told, hops, waited)
    local row = look_up(service)
    if not row or row.stopped then return ngx.exit(503) end
    local yes, cookies = nil, told
    if row.guarded then
        yes = guard.ask(service, logins)
        cookies = guard.together(told, yes.cookies)
        local other = yes.serve and instead(yes, hops)
        if other then
            ngx.var.sp_service = other
            front.strip(other)
            return lead(other, logins, cookies, hops + 1)
        end
    end
    if row.starting and row.backend ~= waited then
        stay(row)
        return lead(service, logins, told, hops, row.backend)
    end
    if go_to(service, row) then return service, yes, cookies end
    return lead(service, logins, told, hops)
end

-- What is kept of an answer is for just those who ask the same, and sent the same of themselves.
local function cache_key(var, yes)
    local login = tostring(ngx.req.get_headers(0)["authorization"] or "")
    return ngx.encode_base64(guard.digest(var.sp_container, yes and yes.who or "", login,
        var.http_cookie or "", var[quick.scheme], var.sp_host, ngx.req.get_method(), var.sp_uri))
end

-- Whether a request for a service may pass, and to which container.
local function pass(var, service, prefix)
    front.preflight(service)
    local logins, more, cookie = front.strip(service)
    connection(var, more)
    var.sp_uri = ways.below(prefix)
    local yes, cookies
    service, yes, cookies = lead(service, logins, nil, 0)
    front.add_headers(service)
    if cookie then front.keep_session() end
    if yes then guard.let_in(yes) end
    if cookies then baked[quick.request()] = cookies end
    return yes
end

-- A reload cuts kept-alive connections, and a client that sends at that moment loses a request.
-- So the ship has them closed politely first: each answer says that it is the last one. It waits
-- for longer than the moment for which an answer is good here.
local function parting()
    local now = quick.now()
    if now ~= looked then looked, closing = now, open:get(CLOSING) == M.generation end
    return closing or ngx.worker.exiting()
end

-- Access phase. Where there is a location `@parting`, nginx itself closes the connection there.
function M.choose(parts)
    local var = ngx.var
    local service = var.sp_service
    if service == "" then return end -- a page of the proxy's own
    if parts and parting() then return ngx.exec("@parting") end
    return pass(var, service, var.sp_prefix)
end

-- What comes bit by bit is nothing to be kept, and would be gathered first.
local function streams(var)
    local accept = var.http_accept
    return var.http_upgrade or (accept and accept:lower():find("text/event-stream", 1, true))
end

-- The same where answers are kept.
function M.keep()
    local var = ngx.var
    if streams(var) then return ngx.exec(var.sp_past) end
    var.sp_key = cache_key(var, M.choose())
end

-- The same where no location said which service.
function M.enter()
    local var = ngx.var
    if parting() and var.sp_parting ~= "1" then return ngx.exec("@parting") end
    local service, prefix = ways.find()
    pass(var, service, prefix)
end

function M.balance()
    local row = led[quick.request()]
    local ok, err = balancer.set_current_peer(row.host, row.port)
    if not ok then
        ngx.log(ngx.CRIT, "no peer: ", err)
        return ngx.exit(500)
    end
end

-- Log phase: once for every request that ever began, however it ended.
function M.log()
    local request = quick.request()
    local row = led[request]
    if not row then return end
    led[request], baked[request] = nil, nil
    count(row, -1)
end

-- Where there is no `@parting`, nginx has said by then that it would keep the connection; most
-- clients read both.
local function last_answer()
    if parting() and ngx.var.sp_parting ~= "1" then
        if ngx.status ~= 101 and ngx.req.http_version() < 2 then
            ngx.header["Connection"] = "close"
        end
    end
end

local function add_cookies(lines)
    if not lines:find("\n", 1, true) then return resp.add_header("Set-Cookie", lines) end
    for line in lines:gmatch("[^\n]+") do resp.add_header("Set-Cookie", line) end
end

function M.answer()
    last_answer()
    local request = quick.request()
    local row, cookies = led[request], baked[request]
    if cookies then add_cookies(cookies) end
    front.answer(row and row.service or ngx.var.sp_service)
end

local function reply(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "text/plain"
    ngx.say(text)
end

local function put_backend(service)
    ngx.req.read_body()
    local backend, more = (ngx.req.get_body_data() or ""):match("^(%S+ %d+ %S+)(.*)$")
    local flags = (more or ""):gsub(" (%l+)", function(flag) return FLAGS[flag] and "" end)
    if not backend or flags ~= "" then
        return reply(400, "wanted: HOST PORT CONTAINER[ asleep][ guarded][ starting][ stopped]")
    end
    backend = backend .. more
    local ok, err = backends:safe_set(service, backend) -- `set` would push out another service
    if not ok then return reply(507, err) end
    reply(200, backend)
end

local function list_backends()
    local lines = {}
    for _, service in ipairs(backends:get_keys(0)) do
        if service ~= LOADED then
            lines[#lines + 1] = service .. " " .. (backends:get(service) or "")
        end
    end
    reply(200, table.concat(lines, "\n"))
end

local function list_workers()
    local lines = {}
    for _, pid in ipairs(worker_pids()) do
        lines[#lines + 1] = pid .. " " .. (workers:get(pid) or "0 leaving")
    end
    reply(200, table.concat(lines, "\n"))
end

-- The control socket, which only the ship can open.
function M.control()
    local method = ngx.req.get_method()
    local kind, name = ngx.var.uri:match("^/(%l+)/?(.*)$")
    if kind == "backends" and name == "" and method == "GET" then
        list_backends()
    elseif kind == "backends" and method == "PUT" then
        put_backend(name)
    elseif kind == "backends" and method == "DELETE" then
        backends:delete(name)
        reply(200, "")
    elseif kind == "closing" and method == "PUT" then
        open:set(CLOSING, M.generation, 10)
        reply(200, M.generation)
    elseif kind == "epoch" and method == "PUT" then
        reply(200, guard.forget())
    elseif kind == "left" and method == "PUT" then
        reply(200, own.cut_off())
    elseif kind == "offline" and (method == "PUT" or method == "DELETE") then
        pages.set_offline(method == "PUT")
        reply(200, "")
    elseif kind == "open" and method == "GET" then
        reply(200, open_requests(name))
    elseif kind == "used" and method == "GET" then
        reply(200, used:get(name) or 0)
    elseif kind == "workers" and method == "GET" then
        list_workers()
    else
        reply(404, "backends, closing, epoch, left, offline, open, used, workers")
    end
end

return M
