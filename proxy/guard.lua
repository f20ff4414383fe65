-- Asks the checker, on its unix socket, whether a request may pass; remembers its yes for a while.

local state = ngx.shared.starphleet_state
local remembered = ngx.shared.starphleet_yes -- hmac of a credential -> answer

local quick = require "quick"

local M = {}

local secret -- as the state has it
local read, reads = {}, 0 -- text of a yes -> what it says, for the few that a worker meets
local SECRET, EPOCH = "\1secret", "\1epoch"
local PATIENCE = 3   -- seconds: the checker may be being restarted
local SLOWEST = 20   -- seconds that it may take to find out
local LONGEST = 65536 -- bytes of an answer's body
local HEADERS = 100
local MOST, LONG, SWEEP = 1000, 8192, 10 -- answers at hand, bytes of what was said, seconds
local COPIED = { "Authorization", "Cookie", "Accept", "Origin", "X-Requested-With", "Upgrade" }
local FORWARDED = {
    ["location"] = "Location", ["www-authenticate"] = "WWW-Authenticate",
    ["set-cookie"] = "Set-Cookie", ["content-type"] = "Content-Type",
    ["retry-after"] = "Retry-After", ["cache-control"] = "Cache-Control",
}

local answers, held, swept = {}, 0, 0 -- of this worker: what was said -> its yes, and until when

-- In the master: a secret for as long as nginx runs.
function M.init()
    if state:get(SECRET) then return end
    local file = assert(io.open("/dev/urandom", "rb"))
    state:set(SECRET, assert(file:read(32)))
    file:close()
end

-- What is being asked meanwhile is stored under the old epoch, where nobody looks.
function M.forget()
    return state:incr(EPOCH, 1, 0)
end

-- An unforgeable digest of texts, none of which can hold a newline.
function M.digest(...)
    secret = secret or state:get(SECRET)
    return ngx.hmac_sha1(secret, table.concat({ ... }, "\n"))
end

local function one(value)
    return type(value) == "table" and table.concat(value, ", ") or value
end

local function question(service)
    local var, headers = ngx.var, ngx.req.get_headers(0)
    local lines = {
        "GET /check HTTP/1.1", "Host: guard",
        "X-Service: " .. service,
        "X-Method: " .. ngx.req.get_method(),
        "X-Scheme: " .. var[quick.scheme],
        "X-Host: " .. var.sp_host,
        "X-Uri: " .. var.request_uri,
        "X-Prefix: " .. var.sp_prefix,
        "X-Address: " .. var.remote_addr,
    }
    for _, name in ipairs(COPIED) do
        local value = name == "Cookie" and var.http_cookie or one(headers[name])
        if value then lines[#lines + 1] = name .. ": " .. value end
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function read_headers(socket)
    local headers = {}
    for _ = 1, HEADERS do
        local line, err = socket:receive("*l")
        if not line then return nil, err end
        if line == "" then return headers end
        local name, value = line:match("^([^:%s]+):%s*(.-)%s*$")
        if not name then return nil, "no header: " .. line end
        headers[#headers + 1] = { name:lower(), value }
    end
    return nil, "too many headers"
end

local function first(headers, name)
    for _, header in ipairs(headers) do
        if header[1] == name then return header[2] end
    end
    return nil
end

local function read_answer(socket, line)
    local status = tonumber(line:match("^HTTP/1%.1 (%d%d%d) "))
    if not status then return nil, "no status: " .. line end
    local headers, err = read_headers(socket)
    if not headers then return nil, err end
    local length = tonumber(first(headers, "content-length"))
    if not length or length > LONGEST then return nil, "no length, or too long" end
    local body = ""
    if length > 0 then
        body, err = socket:receive(length)
        if not body then return nil, err end
    end
    if (first(headers, "connection") or ""):lower() == "close" then
        socket:close()
    else
        socket:setkeepalive(60000, 128)
    end
    return { status = status, headers = headers, body = body }
end

-- An answer; or why there is none, and whether it is worth asking again.
local function ask_once(text)
    local socket = ngx.socket.tcp()
    socket:settimeouts(1000, 5000, SLOWEST * 1000)
    local ok, err = socket:connect("unix:" .. ngx.config.prefix() .. "guard/socket")
    if not ok then return nil, err, true end
    ok, err = socket:send(text)
    local line
    if ok then line, err = socket:receive("*l") end
    if not line then
        socket:close()
        return nil, err, err ~= "timeout"
    end
    local answer
    answer, err = read_answer(socket, line)
    if not answer then socket:close() end
    return answer, err, false
end

local function ask(text)
    local deadline = ngx.now() + PATIENCE
    while true do
        local answer, _, again = ask_once(text) -- why not would be logged with the request
        if answer then return answer end
        ngx.update_time()
        if not again or ngx.now() > deadline then
            return nil
        end
        ngx.sleep(0.05)
    end
end

-- What the client is told instead, as the checker said it.
local function refuse(answer)
    ngx.var.sp_expires, ngx.ctx.ours = "off", true
    ngx.status = answer.status
    local given = {}
    for _, header in ipairs(answer.headers) do
        local name = FORWARDED[header[1]]
        if name then
            given[name] = given[name] or {}
            table.insert(given[name], header[2])
        end
    end
    for name, values in pairs(given) do
        ngx.header[name] = #values == 1 and values[1] or values
    end
    ngx.header["Content-Length"] = #answer.body
    if answer.body == "" then ngx.send_headers() else ngx.print(answer.body) end
    ngx.exit(ngx.HTTP_OK)
end

-- A yes as text, to be kept: a letter, a colon, what it says; one to a line.
local LETTERS = { ["x-identity"] = "i", ["x-pass"] = "p", ["x-serve"] = "s", ["set-cookie"] = "c" }

local function as_text(answer)
    local lines = {}
    for _, header in ipairs(answer.headers) do
        local letter = LETTERS[header[1]]
        if letter then lines[#lines + 1] = letter .. ":" .. header[2] end
    end
    return table.concat(lines, "\n")
end

-- What is known of cookies, one to a line, and more of them.
function M.together(lines, more)
    return lines and more and lines .. "\n" .. more or lines or more
end

local function parsed(text)
    local yes = { passes = {}, who = text:gsub("c:[^\n]*\n?", "") }
    for letter, value in text:gmatch("(%l):([^\n]*)") do
        if letter == "p" then
            local name, passed = value:match("^([^:]+):%s*(.*)$")
            if name then table.insert(yes.passes, { name, passed }) end
        elseif letter == "c" then
            yes.cookies = M.together(yes.cookies, value)
        elseif letter == "s" then
            yes.serve = value
        else
            yes.identity = value
        end
    end
    return yes
end

local function from_text(text)
    local yes = read[text]
    if not yes then
        if reads == 1000 then read, reads = {}, 0 end
        yes = parsed(text)
        read[text], reads = yes, reads + 1
    end
    return yes
end

-- What this worker was told lately, as it was asked. What a client said of itself is not kept
-- any longer than what it was told.
local function lately(said)
    local now = quick.now()
    if now > swept + SWEEP then answers, held, swept = {}, 0, now end
    local answer = answers[said]
    return answer and now < answer.ends and answer.yes
end

local function at_hand(said, yes, seconds)
    if seconds and held < MOST and #said <= LONG then
        held = held + 1
        answers[said] = { yes = yes, ends = ngx.now() + seconds }
    end
    return yes
end

-- The yes to this request, with so many Authorization headers; an old one unless it has to be
-- `fresh`. Does not return when there is none: then the client has its answer.
function M.ask(service, logins, fresh)
    if logins > 1 then ngx.exit(400) end
    local var = ngx.var
    local authorization = logins > 0 and (var.http_authorization or "")
    local args = var.args or ""
    -- What stands in the URL is for this request alone.
    local once = fresh or args:find("jwt=", 1, true) or args:find("starphleet_link=", 1, true)
    local said = not once and (state:get(EPOCH) or 0) .. "\n" .. service .. "\n" ..
        var[quick.scheme] .. "\n" .. (authorization or "") .. (authorization and "\n1\n" or "\n0\n") ..
        (var.http_cookie or "")
    local yes = said and lately(said)
    if yes then return yes end
    local key = said and M.digest(said)
    local text = key and remembered:get(key)
    if text then return at_hand(said, from_text(text), remembered:ttl(key)) end
    local answer = ask(question(service))
    if not answer then
        var.sp_trouble = "guard"
        ngx.exit(503)
    elseif answer.status ~= 200 then
        refuse(answer)
    end
    text = as_text(answer)
    local keep = math.min(10, tonumber(first(answer.headers, "x-keep")) or 0)
    if not key or keep <= 0 then return from_text(text) end
    remembered:set(key, text, keep)
    return at_hand(said, from_text(text), keep)
end

local function pass(passes, at)
    local header = passes[at]
    if not header then return end
    ngx.req.set_header(header[1], header[2])
    return pass(passes, at + 1)
end

-- What the app learns of a yes.
function M.let_in(yes)
    pass(yes.passes, 1)
end

return M
