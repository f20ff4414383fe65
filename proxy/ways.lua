-- Where a path leads. A thousand services are one location of nginx: it reads that much faster.

local facts = require "services"
local pages = require "pages"

local M = {}

local function by_number(letter)
    return string.format("%%%02X", letter:byte())
end

-- The path below the route's prefix, byte for byte as the client sent it. Only when the client
-- wrote the prefix itself in another way (%7E for ~, dot segments) is nginx's decoded path used.
function M.below(prefix)
    local raw = ngx.var.request_uri
    if raw:byte(1) ~= 47 then raw = "/" .. raw end
    -- No prefix holds a question mark: what begins with it has it in its path.
    if prefix == "" or raw:sub(1, #prefix + 1) == prefix .. "/" then
        local rest = raw:sub(#prefix + 1)
        return rest
    end
    local path = raw:match("^[^?]*")
    local decoded = ngx.var.uri:sub(#prefix + 1)
    local escaped = decoded:gsub("[^A-Za-z0-9/._~!$&'()*+,;=:@-]", by_number)
    return escaped .. raw:sub(#path + 1)
end

-- The rest of a path behind `to`: it can never become the host of a URL.
local function joined(to, rest)
    if rest == "" or rest:byte() == 63 then return to .. rest end
    to = to:gsub("/$", "")
    if to == "" then rest = rest:gsub("^[/\\]+", "/") end
    return to .. rest
end

local function redirect(location)
    ngx.header["Location"] = location
    ngx.exit(301)
end

-- A sign: its path leads elsewhere, and what is below it too.
function M.lead_on()
    local prefix = ngx.var.sp_prefix
    redirect(joined(facts.signs[prefix .. "/"], M.below(prefix)))
end

-- A host that leads elsewhere.
function M.redirect()
    redirect(joined(facts.redirects[ngx.var.host], M.below("")))
end

-- The longest path of a service or sign that `uri` is at or below. Nobody makes it look further
-- down than the deepest of them is.
local function longest(uri)
    local ends, at = {}, 0
    for depth = 1, facts.depth do
        at = uri:find("/", at + 1, true)
        if not at then break end
        ends[depth] = at
    end
    for depth = #ends, 1, -1 do
        local path = uri:sub(1, ends[depth])
        if facts.paths[path] or facts.signs[path] then return path end
    end
end

-- Access phase: sets and returns which service, and the prefix; or answers.
function M.find()
    local var = ngx.var
    local uri = var.uri
    local whole = uri .. "/"
    if facts.paths[whole] then
        redirect(whole .. (var.is_args or "") .. (var.args or ""))
    end
    local path = facts.signs[whole] and whole or longest(uri)
    if not path then
        pages.nothing_here()
        ngx.exit(ngx.HTTP_OK)
    end
    local service, prefix = facts.paths[path], path:sub(1, -2)
    var.sp_prefix = prefix
    if facts.signs[path] then M.lead_on() end
    var.sp_service = service
    return service, prefix
end

return M
