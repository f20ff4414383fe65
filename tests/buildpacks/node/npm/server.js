const app = require('express')()
app.get('/', (request, response) => response.send(`express at sea, ${process.env.NODE_ENV}`))
app.listen(process.env.PORT)
