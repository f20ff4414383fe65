-- What nginx decides for each request: the container, its count, the path it sees.
-- Loaded once by the master; the tables live in shared memory and outlive reloads.

local balancer = require "ngx.balancer"
local ffi = require "ffi"
local front = require "front"
local guard = require "guard"
local pages = require "pages"
local ways = require "ways"

ffi.cdef "int kill(int pid, int sig);"

local backends = ngx.shared.starphleet_backends -- service -> "host port container[ asleep][ guarded]"
local open = ngx.shared.starphleet_open         -- "container pid" -> requests open there
local workers = ngx.shared.starphleet_workers   -- pid -> "generation state"
local used = ngx.shared.starphleet_used         -- container -> when it was last asked, epoch seconds

local M = { generation = 0 }

local LOADED = "\1loaded" -- no service can have this name
local CLOSING = "\1closing" -- generation whose connections are to end soon
local FLAGS = { [""] = true, [" asleep"] = true, [" guarded"] = true, [" asleep guarded"] = true }
local MOST_ROWS = 4096
local HOPS = 3 -- services that one request may be led through
local ONCE_ONLY = { POST = true, LOCK = true, PATCH = true } -- what nginx never sends twice

local rows, held = {}, 0      -- backend as text -> what it says, and how many of them
local second, touched = 0, {} -- the containers that were asked in this second

-- The master's memory starts empty: fill it from what the ship wrote last. On a reload it is
-- full, and the file may be behind it.
function M.init(generation, ship)
    M.generation, pages.ship = generation, ship
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

-- A worker tells when it stops accepting: pending timers fire early, right after the listening
-- sockets were closed.
function M.init_worker()
    local pid = tostring(ngx.worker.pid())
    workers:set(pid, M.generation .. " serving")
    local function leaving(premature)
        if premature then
            workers:set(pid, M.generation .. " leaving")
        else
            ngx.timer.at(86400, leaving)
        end
    end
    ngx.timer.at(86400, leaving)
end

function M.exit_worker()
    workers:delete(tostring(ngx.worker.pid()))
end

local function worker_pids()
    local alive = {}
    for _, pid in ipairs(workers:get_keys(0)) do
        -- one that crashed could not say goodbye; what it had open went with it
        if ffi.C.kill(tonumber(pid), 0) == 0 then
            alive[#alive + 1] = pid
        else
            workers:delete(pid)
        end
    end
    return alive
end

local function open_requests(container)
    local sum = 0
    for _, pid in ipairs(worker_pids()) do
        sum = sum + (open:get(container .. " " .. pid) or 0)
    end
    return sum
end

local function count(container, step)
    local key = container .. " " .. ngx.worker.pid()
    if open:incr(key, step, 0) == 0 then open:delete(key) end
end

-- A request that cannot be sent twice travels on a connection of its own: a kept-alive one that
-- the app closes at that very moment would be a 502 that nobody can mend.
local function connection(var)
    local upgrade = var.http_upgrade
    if upgrade and upgrade:lower() == "websocket" then
        var.sp_upgrade, var.sp_connection = "websocket", "upgrade"
        return
    end
    local length = tonumber(var.http_content_length) or 0
    if ONCE_ONLY[ngx.req.get_method()] or length > 0 or var.http_transfer_encoding then
        var.sp_upstream, var.sp_connection = "starphleet_once", "close"
    end
end

-- The ship wakes what it put to sleep, and answers when that can be asked.
local function wake(service)
    local ship = ngx.socket.tcp()
    ship:settimeout(10000)
    local ok = ship:connect("unix:" .. ngx.config.prefix() .. "hooks/wake")
    if ok then ok = ship:send(service .. "\n") end
    if ok then ok = ship:receive() end
    ship:close()
    return ok == "awake" -- else the ship's log says why
end

-- What a row of the table says. Reading it takes a pattern, and patterns are not compiled.
local function read(backend)
    local row = rows[backend]
    if row then return row end
    local host, port, container, more = backend:match("^(%S+) (%d+) (%S+)(.*)$")
    row = {
        host = host, port = tonumber(port), container = container,
        asleep = more:find(" asleep", 1, true) ~= nil,
        guarded = more:find(" guarded", 1, true) ~= nil,
    }
    if held >= MOST_ROWS then rows, held = {}, 0 end
    rows[backend], held = row, held + 1
    return row
end

-- Once a second is enough for who asks how long it was idle.
local function use(container)
    local now = ngx.time()
    if now ~= second then second, touched = now, {} end
    if touched[container] then return end
    touched[container] = true
    used:set(container, now)
end

-- Counted first and looked up again, so that a ship that has switched and then reads zero can be
-- sure that nobody still is on the way to the old one.
local function go_to(service, backend)
    local row = read(backend)
    local container = row.container
    count(container, 1)
    if backends:get(service) == backend and not row.asleep then
        use(container)
        ngx.var.sp_container = container
        ngx.ctx.row = row
        return true
    end
    count(container, -1)
    if row.asleep and not wake(service) then ngx.exit(503) end
end

-- Another service in place of this one, for whom the guard says so.
local function instead(yes, hops)
    return hops < HOPS and yes.serve and yes.serve ~= "" and backends:get(yes.serve) and yes.serve
end

-- What is kept of an answer is for just those who ask the same, and sent the same of themselves.
local function cache_key(var, headers, yes)
    return ngx.encode_base64(guard.digest(var.sp_container, yes and yes.who or "",
        tostring(headers["authorization"] or ""), var.http_cookie or "", var.scheme, var.sp_host,
        ngx.req.get_method(), var.sp_uri))
end

-- Access phase: whether the request may pass, and to which container.
function M.choose()
    local var = ngx.var
    local service = var.sp_service
    if service == "" then return end -- a page of the proxy's own
    front.preflight(service)
    local headers = front.strip(service)
    connection(var)
    var.sp_uri = ways.below(var.sp_prefix)
    local yes, asked, hops, cookies = nil, nil, 0, {}
    while true do
        local backend = backends:get(service)
        if not backend then return ngx.exit(503) end
        if asked ~= service and read(backend).guarded then
            asked, yes = service, guard.ask(service, headers)
            for _, cookie in ipairs(yes.cookies) do cookies[#cookies + 1] = cookie end
            local other = instead(yes, hops)
            if other then
                service, yes, asked, hops = other, nil, nil, hops + 1
                var.sp_service = service
                front.strip(service)
            end
        elseif go_to(service, backend) then
            break
        end
    end
    front.add_headers(service)
    if yes then guard.let_in(yes) end
    if cookies[1] then ngx.ctx.cookies = cookies end
    if var.sp_cached ~= "" then var.sp_key = cache_key(var, headers, yes) end
end

-- The same where no location said which service.
function M.enter()
    ways.find()
    M.choose()
end

function M.balance()
    local row = ngx.ctx.row
    local ok, err = balancer.set_current_peer(row.host, row.port)
    if not ok then
        ngx.log(ngx.CRIT, "no peer: ", err)
        return ngx.exit(500)
    end
end

-- Log phase: once for every request that ever began, however it ended. ngx.ctx does not survive
-- the way to an error page; variables do.
function M.log()
    local container = ngx.var.sp_container
    if container and container ~= "" then count(container, -1) end
end

-- A reload cuts kept-alive connections, and a client that sends at that moment loses a request.
-- So the ship has them closed politely first: each answer says that it is the last one.
local function last_answer()
    if ngx.worker.exiting() or open:get(CLOSING) == M.generation then
        if ngx.status ~= 101 and ngx.req.http_version() < 2 then
            ngx.header["Connection"] = "close"
        end
    end
end

function M.answer()
    last_answer()
    front.answer(ngx.var.sp_service)
end

local function reply(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "text/plain"
    ngx.say(text)
end

local function put_backend(service)
    ngx.req.read_body()
    local backend, more = (ngx.req.get_body_data() or ""):match("^(%S+ %d+ %S+)(.*)$")
    if not backend or not FLAGS[more] then
        return reply(400, "wanted: HOST PORT CONTAINER[ asleep][ guarded]")
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
        reply(404, "backends, closing, epoch, offline, open, used, workers")
    end
end

return M
